/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/migration.h"

/* Makes the migrations of the broker before this one again, from what the FD store holds: see
 * migration-store.c. */

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/log.h"
#include "broker/migration/record.h"
#include "broker/net/port.h"
#include "common/cleanup.h"
#include "common/clock.h"

#define GRACE \
    5000000 /* µs that a restored migration has at least: what its helper said is still to be read */

/* ---- The names in the store ---- */

/* "in-0123456789abcdef-WHAT"; where that is state.N it is a record, and N its number. */
struct name {
    char text[STORE_NAME_MAX];
    enum message_role role;
    uint64_t id;
    bool record;
    uint32_t number;
    size_t at; /* the how many-th it is in the store, which is in the order in which they were put */
};

/* All names of one migration: its records, the newest first, then the others as they were put. */
struct group {
    const struct name *names;
    size_t n;
};

/* false for other names. */
static bool read_name(const char *text, size_t at, struct name *ret)
{
    const char *id = strchr(text, '-');

    if (!id || (strncmp(text, "in-", 3) != 0 && strncmp(text, "out-", 4) != 0))
        return false;
    if (strspn(++id, "0123456789abcdef") != 16 || id[16] != '-')
        return false;
    *ret = (struct name){
        .role = text[0] == 'i' ? ROLE_INCOMING : ROLE_OUTGOING, .id = strtoull(id, NULL, 16), .at = at};
    snprintf(ret->text, sizeof(ret->text), "%s", text);
    ret->record = sscanf(id + 17, "state.%" SCNu32, &ret->number) == 1;
    return true;
}

static int compare_names(const void *a, const void *b)
{
    const struct name *one = a, *other = b;

    if (one->role != other->role)
        return one->role < other->role ? -1 : 1;
    if (one->id != other->id)
        return one->id < other->id ? -1 : 1;
    if (one->record != other->record)
        return one->record ? -1 : 1;
    if (one->number != other->number)
        return one->number > other->number ? -1 : 1;
    return one->at < other->at ? -1 : 1;
}

static int compare_groups(const void *a, const void *b)
{
    const struct group *one = a, *other = b;

    return one->names->at < other->names->at ? -1 : 1;
}

/* Those that nobody has taken, sorted by their migrations; NULL where there are none, or there is no memory.
 */
static struct name *sort_names(const struct store *store, size_t *ret_n)
{
    struct name *names;
    size_t max = 0, at = 0;

    *ret_n = 0;
    for (const char *text = store_next(store, NULL); text; text = store_next(store, text))
        max++;
    names = calloc(max, sizeof(*names));
    if (!names)
        return NULL;
    for (const char *text = store_next(store, NULL); text && at < max; text = store_next(store, text))
        *ret_n += read_name(text, at++, &names[*ret_n]);
    qsort(names, *ret_n, sizeof(*names), compare_names);
    return names;
}

/* The migrations of which there is a record, in the order of that. */
static struct group *group_names(const struct name *names, size_t n, size_t *ret_n)
{
    struct group *groups = calloc(n, sizeof(*groups));

    *ret_n = 0;
    for (size_t i = 0, end; groups && i < n; i = end) {
        for (end = i + 1; end < n && names[end].role == names[i].role && names[end].id == names[i].id; end++)
            ;
        if (names[i].record)
            groups[(*ret_n)++] = (struct group){&names[i], end - i};
    }
    if (groups)
        qsort(groups, *ret_n, sizeof(*groups), compare_groups);
    return groups;
}

/* ---- The record ---- */

/* Reads a record; NULL, or what is wrong with it. */
static const char *read_record(int fd, struct record_draft *draft)
{
    const int sealed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    int seals = fcntl(fd, F_GET_SEALS);
    const char *why;
    ssize_t n;

    if (seals < 0 || (seals & sealed) != sealed)
        return "it is no sealed memory";
    n = pread(fd, draft->data, sizeof(draft->data), 0);
    if (n < 0)
        return "it cannot be read";
    record_decode(draft->data, (size_t)n, &draft->record, &why);
    return why;
}

static char *text_of(const char *text)
{
    return text[0] != '\0' ? strdup(text) : NULL;
}

static int read_options(const struct record *record, struct options *ret)
{
    *ret = (struct options){
        .n_streams = record->n_streams,
        .n_endpoints = record->n_endpoints,
        .no_endpoints = record->role == ROLE_INCOMING && !record->expects_peers,
        .expire = record->expire,
        .resume_timeout = record->resume_timeout,
        .bandwidth_limit = record->bandwidth_limit,
        .expected_bytes = record->expected_bytes,
        .client_id = text_of(record->client_id),
        .tie_to_caller = record->tied_to[0] != '\0',
        .has_owner = true,
        .owner_uid = record->owner_uid,
        .owner_gid = record->owner_gid,
        .has_group = record->owner_group,
    };
    memcpy(ret->streams, record->streams, sizeof(ret->streams));
    memcpy(ret->endpoints, record->endpoints, sizeof(ret->endpoints));
    /* What the caller named is used as he may use it, and so is what nobody knows of. */
    for (uint32_t i = 0; i < record->n_streams; i++) {
        if (record->own_paths & (1U << i))
            continue;
        ret->sockets[i] = strdup(record->paths[i]);
        if (!ret->sockets[i])
            return -ENOMEM;
    }
    return 0;
}

static void read_state(struct migration *migration, const struct record *record)
{
    migration->security = record->security;
    migration->result = record->result;
    migration->error = record->error;
    migration->ending = record->ending;
    migration->farewell = record->farewell;
    migration->started = record->started;
    migration->finished = record->finished;
    migration->deadline = record->deadline;
    migration->message = text_of(record->message);
    migration->ending_text = text_of(record->ending_text);
    migration->directory = text_of(record->directory);
    migration->tied_to = text_of(record->tied_to);
    migration->ticket = text_of(record->ticket);
    snprintf(migration->helper_unit, sizeof(migration->helper_unit), "%s", record->unit);
    memcpy(migration->peer, record->peer, sizeof(migration->peer));
    for (uint32_t i = 0; i < record->n_paths; i++)
        memcpy(migration->streams[i].path, record->paths[i], sizeof(migration->streams[i].path));
    migration->state = record->state;
    if (record->state == STATE_FINISHED) {
        migration->manager->n_running--;
        migration->manager->n_finished++;
    }
}

/* The counters of a finished one. */
static void read_counters(struct migration *migration, const struct record *record)
{
    struct stats *stats = calloc(1, sizeof(*stats));

    if (!stats)
        return;
    *stats = (struct stats){
        .sent = record->sent,
        .received = record->received,
        .round_trip_usec = record->round_trip,
        .reconnects = record->reconnects,
        .n_channels = record->n_channels,
    };
    memcpy(stats->channels, record->channels, sizeof(stats->channels));
    migration->page.stats = stats;
    migration->page.detached = true;
}

/* ---- The descriptors ---- */

static int take(struct migration *migration, const char *what)
{
    char name[STORE_NAME_MAX];

    migration_store_name(migration, name, "%s", what);
    return store_take(migration->manager->store, name);
}

static void take_listeners(struct migration *migration)
{
    for (uint32_t i = 0; i < migration->options.n_streams; i++) {
        struct stream *stream = &migration->streams[i];
        char what[24];
        int r;

        snprintf(what, sizeof(what), "listen.%" PRIu32, i);
        stream->listener = take(migration, what);
        r = stream->listener >= 0 ? stream_accept(stream) : 0;
        if (r < 0)
            migration_log(migration, LOG_ERR, NULL, "Cannot accept on %s any more: %s.", stream->path,
                          strerror(-r));
    }
}

/* One socket that was supplied: "in-ID-sock.STREAM.N", "in-ID-ours.STREAM.N", "out-ID-peer.N"; or that
 * connects, "in-ID-dial.STREAM.CHANNEL". */
static void take_supplied(struct migration *migration, const char *name)
{
    const char *what = strrchr(name, '-') + 1;
    uint32_t stream = 0, number = 0;
    char end;
    bool peer = sscanf(what, "peer.%" SCNu32 "%c", &number, &end) == 1;
    bool ours = sscanf(what, "ours.%" SCNu32 ".%" SCNu32 "%c", &stream, &number, &end) == 2;

    if (sscanf(what, "dial.%" SCNu32 ".%" SCNu32 "%c", &stream, &number, &end) == 2) {
        if (migration->state != STATE_FINISHED && stream < migration->options.n_streams)
            stream_restore_dial(&migration->streams[stream], store_take(migration->manager->store, name),
                                number);
        return;
    }
    if (!peer && !ours && sscanf(what, "sock.%" SCNu32 ".%" SCNu32 "%c", &stream, &number, &end) != 2)
        return;
    if (migration->state == STATE_FINISHED || stream >= migration->options.n_streams)
        return;
    if (migration->supplied_number < number)
        migration->supplied_number = number;
    if (peer) {
        if (migration->supplied.n_peers < SUPPLIED_PEERS_MAX) {
            int fd = store_take(migration->manager->store, name);

            supplied_remember(&migration->supplied, fd);
            supplied_put_peer(&migration->supplied, fd, number);
        }
    } else {
        stream_restore(&migration->streams[stream], store_take(migration->manager->store, name), ours,
                       number);
    }
}

static void take_helper(struct migration *migration)
{
    union message sync = {0};
    int fd = take(migration, "link"), page = take(migration, "page"), r = -ENOENT;

    if (migration->state != STATE_FINISHED && (page < 0 || stats_page_map(&migration->page, page) < 0))
        migration_log(migration, LOG_WARNING, NULL,
                      "Its counters are lost: their page was not in the FD store.");
    else if (migration->state == STATE_FINISHED)
        fd_closep(&page);
    if (fd >= 0)
        r = helper_link_adopt(&migration->manager->helpers, fd, migration->helper_unit, PHASE_RELAY,
                              &migration_helper_handlers, migration, &migration->helper);
    /* One that has ended meanwhile cannot be told; what it said is read before its end is seen. */
    if (r >= 0) {
        if (gnutls_rnd(GNUTLS_RND_NONCE, &migration->sync, sizeof(migration->sync)) < 0)
            migration->sync = wall_now();
        sync.sync.cookie = migration->sync;
        if (helper_link_send(migration->helper, MESSAGE_SYNC, &sync, -1) == -EAGAIN)
            helper_link_kill(migration->helper, "does not read what it is told");
    } else if (migration->state != STATE_FINISHED) {
        migration_lost(migration, "Its helper was not in the FD store when vmferryd started again.");
    }
}

/* ---- One migration ---- */

/* names: all that the store holds of it, in the order in which it was put. */
static int make(struct manager *manager, const struct record *record, const struct name *names, size_t n)
{
    _cleanup_(options_clear) struct options options;
    struct migration *migration;
    uint64_t earliest = turn_now(manager->event) + GRACE;
    int r;

    r = read_options(record, &options);
    if (r < 0)
        return r;
    r = migration_new(manager, record->role, record->id, record->vm, &options, record->uid, &migration);
    if (r < 0)
        return r;
    migration->restored = migration->stored = true;
    migration->record_number = names[0].number;
    read_state(migration, record);
    if (migration->deadline > 0 && migration->deadline < earliest)
        migration->deadline = earliest;
    if (record->expects_peers) {
        port_hold(manager->port);
        migration->expects_peers = true;
    }
    if (record->state == STATE_FINISHED)
        read_counters(migration, record);
    migration_arm(migration);
    take_listeners(migration);
    for (size_t i = 0; i < n; i++)
        take_supplied(migration, names[i].text);
    if (record->state != STATE_FINISHED || record->farewell)
        take_helper(migration);
    migration_log(migration, LOG_DEBUG, NULL, "Taken over: %s.", migration_state_text(migration));
    return 0;
}

/* A helper of which nobody knows what it is for: it tells its peer and its QEMU, and goes. */
static void end_helper(struct store *store, const char *name)
{
    _cleanup_fd_ int fd = store_take(store, name);
    union message m = {.end.error = VF_ERROR_HELPER_FAILED};

    if (fd < 0)
        return; /* its migration has it */
    message_text_set(m.end.text, sizeof(m.end.text), "Its state was lost in a restart of vmferryd.");
    message_send(fd, MESSAGE_END, &m, -1);
    shutdown(fd, SHUT_WR);
    store_remove(store, name);
}

static bool restore_one(struct manager *manager, const struct name *names, size_t n,
                        struct record_draft *draft)
{
    _cleanup_fd_ int fd = store_take(manager->store, names->text);
    const char *why = read_record(fd, draft);

    if (!why && (draft->record.id != names->id || draft->record.role != names->role))
        why = "it is that of another migration";
    if (!why && make(manager, &draft->record, names, n) < 0)
        why = "there is no memory";
    if (!why)
        return true;
    log_event(LOG_ERR, NULL, NULL, "The stored state '%s' cannot be used: %s. Its migration ends.",
              names->text, why);
    store_remove(manager->store, names->text);
    return false;
}

/* By its newest record. An older one was yet to be removed, and is looked at only where the newer is no good.
 */
static void restore_group(struct manager *manager, const struct group *group, struct record_draft *draft)
{
    bool restored = false;

    for (size_t i = 0; i < group->n && group->names[i].record; i++)
        if (restored)
            store_remove(manager->store, group->names[i].text);
        else
            restored = restore_one(manager, &group->names[i], group->n - i, draft);
}

void migration_restore_all(struct manager *manager)
{
    _cleanup_(record_draft_freep) struct record_draft *draft = malloc(sizeof(*draft));
    struct store *store = manager->store;
    size_t n, n_groups;
    _cleanup_free_ struct name *names = sort_names(store, &n);
    _cleanup_free_ struct group *groups = group_names(names, n, &n_groups);

    for (size_t i = 0; draft && i < n_groups; i++)
        restore_group(manager, &groups[i], draft);
    for (size_t i = 0; i < n; i++) {
        const char *what = names[i].text + strlen(names[i].text) - strlen("-link");

        if (strcmp(what, "-link") == 0)
            end_helper(store, names[i].text);
    }
    store_drop_rest(store);
    if (manager->n_running + manager->n_finished > 0)
        log_event(LOG_INFO, NULL, NULL,
                  "Took over from the last vmferryd: %" PRIu32 " migrations, and %" PRIu32 " finished ones.",
                  manager->n_running, manager->n_finished);
}

/* ---- tie-to-caller ---- */

static int on_has_owner(sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    struct migration *migration = userdata;
    int there = 1;

    (void)error;
    migration->tie_slot = sd_bus_slot_unref(migration->tie_slot);
    if (!sd_bus_message_is_method_error(reply, NULL) && sd_bus_message_read(reply, "b", &there) >= 0 &&
        !there)
        migration_client_gone(migration, migration->tied_to);
    return 0;
}

void migration_check_ties(struct manager *manager)
{
    struct migration *migration;

    TAILQ_FOREACH(migration, &manager->migrations, entry)
    if (migration->tied_to)
        sd_bus_call_method_async(manager->bus, &migration->tie_slot, "org.freedesktop.DBus",
                                 "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameHasOwner",
                                 on_has_owner, migration, "s", migration->tied_to);
}
