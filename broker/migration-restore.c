/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "migration.h"

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

#include "common/cleanup.h"
#include "log.h"
#include "port.h"
#include "state.h"

#define GRACE \
    5000000 /* µs that a restored migration has at least: what its helper said is still to be read */

struct draft {
    struct record record;
    uint8_t data[RECORD_SIZE_MAX];
};

static void draft_freep(struct draft **draft)
{
    if (*draft)
        explicit_bzero(*draft, sizeof(**draft));
    free(*draft);
}

/* ---- The record ---- */

/* Reads a record; NULL, or what is wrong with it. */
static const char *read_record(int fd, struct draft *draft)
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
        char what[16];
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

/* In the order in which the store lists them, which is that in which they were put. */
static void take_all_supplied(struct migration *migration)
{
    struct store *store = migration->manager->store;
    char prefix[STORE_NAME_MAX];
    const char *name;

    migration_store_name(migration, prefix, "%s", "");
    for (name = store_next(store, NULL); name; name = store_next(store, name))
        if (strncmp(name, prefix, strlen(prefix)) == 0)
            take_supplied(migration, name);
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
            migration->sync = migration_now();
        sync.sync.cookie = migration->sync;
        if (helper_link_send(migration->helper, MESSAGE_SYNC, &sync, -1) == -EAGAIN)
            helper_link_kill(migration->helper, "does not read what it is told");
    } else if (migration->state != STATE_FINISHED) {
        migration_lost(migration, "Its helper was not in the FD store when vmferryd started again.");
    }
}

/* ---- One migration ---- */

static int make(struct manager *manager, const struct record *record, uint32_t number)
{
    _cleanup_(options_clear) struct options options;
    struct migration *migration;
    uint64_t now = 0;
    int r;

    r = read_options(record, &options);
    if (r < 0)
        return r;
    r = migration_new(manager, record->role, record->id, record->vm, &options, record->uid, &migration);
    if (r < 0)
        return r;
    migration->restored = migration->stored = true;
    migration->record_number = number;
    read_state(migration, record);
    sd_event_now(manager->event, CLOCK_MONOTONIC, &now);
    if (migration->deadline > 0 && migration->deadline < now + GRACE)
        migration->deadline = now + GRACE;
    if (record->expects_peers) {
        port_hold(manager->port);
        migration->expects_peers = true;
    }
    if (record->state == STATE_FINISHED)
        read_counters(migration, record);
    migration_arm(migration);
    take_listeners(migration);
    take_all_supplied(migration);
    if (record->state != STATE_FINISHED || record->farewell)
        take_helper(migration);
    migration_log(migration, LOG_DEBUG, NULL, "Taken over: %s.", migration_state_text(migration));
    return 0;
}

struct name {
    enum message_role role;
    uint64_t id;
    uint32_t number;
};

/* "in-0123456789abcdef-WHAT"; where that is state.N also N. false for other names. */
static bool read_name(const char *name, const char *what, struct name *ret)
{
    const char *id = strchr(name, '-');
    char *end;

    if (!id || (strncmp(name, "in-", 3) != 0 && strncmp(name, "out-", 4) != 0))
        return false;
    ret->role = name[0] == 'i' ? ROLE_INCOMING : ROLE_OUTGOING;
    if (strspn(++id, "0123456789abcdef") != 16 || id[16] != '-' || strncmp(id + 17, what, strlen(what)) != 0)
        return false;
    ret->id = strtoull(id, &end, 16);
    ret->number = 0;
    return strcmp(what, "state.") != 0 || sscanf(id + 23, "%" SCNu32, &ret->number) == 1;
}

/* A helper of which nobody knows what it is for: it tells its peer and its QEMU, and goes. */
static void end_helper(struct store *store, const char *name)
{
    _cleanup_fd_ int fd = store_take(store, name);
    union message m = {.end.error = VF_ERROR_HELPER_FAILED};

    message_text_set(m.end.text, sizeof(m.end.text), "Its state was lost in a restart of vmferryd.");
    message_send(fd, MESSAGE_END, &m, -1);
    shutdown(fd, SHUT_WR);
    store_remove(store, name);
}

/* The newest record of those that there are of one migration. */
static bool is_newest(const struct store *store, const struct name *one)
{
    struct name other;

    for (const char *name = store_next(store, NULL); name; name = store_next(store, name))
        if (read_name(name, "state.", &other) && other.role == one->role && other.id == one->id &&
            other.number > one->number)
            return false;
    return true;
}

static void restore_one(struct manager *manager, const char *stored, const struct name *name,
                        struct draft *draft)
{
    _cleanup_fd_ int fd = store_take(manager->store, stored);
    const char *why = read_record(fd, draft);

    if (!why && (draft->record.id != name->id || draft->record.role != name->role))
        why = "it is that of another migration";
    if (manager_find(manager, name->role, name->id)) { /* an older record, which was yet to be removed */
        store_remove(manager->store, stored);
        return;
    }
    if (!why && make(manager, &draft->record, name->number) < 0)
        why = "there is no memory";
    if (!why)
        return;
    log_event(LOG_ERR, NULL, NULL, "The stored state '%s' cannot be used: %s. Its migration ends.", stored,
              why);
    store_remove(manager->store, stored);
}

void migration_restore_all(struct manager *manager)
{
    _cleanup_(draft_freep) struct draft *draft = malloc(sizeof(*draft));
    struct store *store = manager->store;
    const char *stored, *next;
    struct name name;

    /* A name that was removed cannot be gone on from. */
    for (stored = store_next(store, NULL); draft && stored; stored = next) {
        char copy[STORE_NAME_MAX];

        next = store_next(store, stored);
        snprintf(copy, sizeof(copy), "%s", stored);
        if (read_name(copy, "state.", &name) && is_newest(store, &name)) {
            restore_one(manager, copy, &name, draft);
            next = store_next(store, NULL);
        }
    }
    for (stored = store_next(store, NULL); stored; stored = next) {
        char copy[STORE_NAME_MAX];

        next = store_next(store, stored);
        snprintf(copy, sizeof(copy), "%s", stored);
        if (read_name(copy, "link", &name))
            end_helper(store, copy);
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
