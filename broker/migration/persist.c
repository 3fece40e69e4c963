/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/migration.h"

/*
 * What of a migration goes to the FD store, by name: "in-ID-link" (or "out-…", with its id) its helper's
 * socket,
 * "-page" the counters, "-listen.STREAM" a listener, "-dial.STREAM.CHANNEL" a
 * connection to QEMU that is being made, "-sock.STREAM.N", "-ours.STREAM.N" and "-peer.N" sockets
 * that were supplied and wait to be needed, "-state.N" the record. That comes last and goes first: where it
 * is, the migration is. A new record is stored before the old one is removed; the one with the highest N
 * counts.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "broker/log.h"
#include "broker/migration/record.h"
#include "broker/store.h"
#include "common/cleanup.h"

enum {
    STORED_BESIDES = 4 /* descriptors of a migration besides its listeners: link, page, and two records */
};

void migration_store_name(const struct migration *migration, char ret[static STORE_NAME_MAX],
                          const char *format, ...)
{
    va_list args;
    int n = snprintf(ret, STORE_NAME_MAX, "%s-%s-", migration->role == ROLE_INCOMING ? "in" : "out",
                     migration->id_text);

    va_start(args, format);
    vsnprintf(ret + n, STORE_NAME_MAX - (size_t)n, format, args);
    va_end(args);
}

/* ---- The record ---- */

static void text_set(char *field, size_t size, const char *text)
{
    if (text)
        message_text_set(field, size, text);
}

#define TEXT_SET(field, text) text_set(field, sizeof(field), text)

static void fill_streams(const struct migration *migration, struct record *record)
{
    const struct options *options = &migration->options;

    record->n_streams = record->n_paths = options->n_streams;
    memcpy(record->streams, options->streams, sizeof(record->streams));
    for (uint32_t i = 0; i < options->n_streams; i++) {
        TEXT_SET(record->paths[i], migration->streams[i].path);
        if (!options->sockets[i])
            record->own_paths |= 1U << i;
    }
    record->n_endpoints = options->n_endpoints;
    memcpy(record->endpoints, options->endpoints, sizeof(record->endpoints));
}

/* Once it is finished the page goes with its helper. */
static void fill_counters(const struct migration *migration, struct record *record)
{
    const struct stats *stats = migration->page.stats;
    uint32_t n;

    if (migration->state != STATE_FINISHED || !stats)
        return;
    n = STATS_READ(stats->n_channels);
    record->sent = STATS_READ(stats->sent);
    record->received = STATS_READ(stats->received);
    record->round_trip = STATS_READ(stats->round_trip_usec);
    record->reconnects = STATS_READ(stats->reconnects);
    for (uint32_t i = 0; i < n && i < STATS_CHANNELS_MAX; i++)
        if (stats->channels[i].state <= STATS_CHANNEL_LOST)
            record->channels[record->n_channels++] = stats->channels[i];
}

static void fill(const struct migration *migration, struct record *record)
{
    const struct options *options = &migration->options;

    *record = (struct record){
        .id = migration->id,
        .role = migration->role,
        .security = migration->security,
        .state = migration->state,
        .result = migration->result,
        .error = migration->error,
        .uid = migration->uid,
        .owner_uid = migration->owner.uid,
        .owner_gid = migration->owner.gid,
        .owner_group = migration->owner.group,
        .expects_peers = migration->expects_peers,
        .farewell = migration->farewell,
        .ending = migration->ending,
        .started = migration->started,
        .finished = migration->finished,
        .deadline = migration->deadline,
        .expire = options->expire,
        .resume_timeout = options->resume_timeout,
        .bandwidth_limit = options->bandwidth_limit,
        .expected_bytes = options->expected_bytes,
    };
    TEXT_SET(record->vm, migration->vm);
    TEXT_SET(record->message, migration->message);
    TEXT_SET(record->peer, migration->peer);
    TEXT_SET(record->ending_text, migration->ending_text);
    TEXT_SET(record->directory, migration->directory);
    TEXT_SET(record->client_id, options->client_id);
    TEXT_SET(record->tied_to, migration->tied_to);
    TEXT_SET(record->unit, migration->helper_unit);
    /* Its secret is the helper's already; only who asks again with the same client-id is to get the same
     * text. */
    if (options->client_id)
        TEXT_SET(record->ticket, migration->ticket);
    fill_streams(migration, record);
    fill_counters(migration, record);
}

/* The record in memory that nobody can change any more; a negative errno. */
static int make_memory(const uint8_t *data, size_t size)
{
    _cleanup_fd_ int fd = memfd_create("vmferry-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    ssize_t n;

    if (fd < 0)
        return -errno;
    n = write(fd, data, size);
    if (n != (ssize_t)size)
        return n < 0 ? -errno : -ENOMEM;
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
        return -errno;
    return fd_steal(&fd);
}

void migration_save(struct migration *migration)
{
    struct store *store = migration->manager->store;
    _cleanup_(record_draft_freep) struct record_draft *draft = NULL;
    _cleanup_fd_ int fd = -1;
    char name[STORE_NAME_MAX];

    if (!store_active(store) || store_frozen(store) || !migration->stored)
        return;
    draft = malloc(sizeof(*draft));
    if (draft) {
        fill(migration, &draft->record);
        fd = make_memory(draft->data, record_encode(&draft->record, draft->data));
    }
    if (fd < 0) {
        log_event(
            LOG_WARNING, migration->id_text, migration->vm,
            "Its state could not be stored (%s): a restart of vmferryd takes it for what it was before.",
            strerror(draft ? -fd : ENOMEM));
        return;
    }
    migration_store_name(migration, name, "state.%" PRIu32, migration->record_number + 1);
    if (!store_put(store, name, fd, 0))
        return; /* the one that is there is older, but it is one */
    migration_store_name(migration, name, "state.%" PRIu32, migration->record_number++);
    store_remove(store, name);
}

/* ---- The descriptors ---- */

static void put(struct migration *migration, const char *what, int fd)
{
    char name[STORE_NAME_MAX];

    migration_store_name(migration, name, "%s", what);
    store_put(migration->manager->store, name, fd, 0);
}

static void remove_one(struct migration *migration, const char *what)
{
    char name[STORE_NAME_MAX];

    migration_store_name(migration, name, "%s", what);
    store_remove(migration->manager->store, name);
}

void migration_store_socket(const struct migration *migration, const char *name, int fd)
{
    store_put(migration->manager->store, name, fd, migration->manager->n_running);
}

void migration_store(struct migration *migration)
{
    char what[24];

    put(migration, "link", helper_link_fd(migration->helper));
    put(migration, "page", migration->page.fd);
    for (uint32_t i = 0; i < migration->options.n_streams; i++) {
        snprintf(what, sizeof(what), "listen.%" PRIu32, i);
        put(migration, what, migration->streams[i].listener);
    }
    migration->stored = true;
    migration_save(migration);
}

void migration_unstore_helper(struct migration *migration)
{
    remove_one(migration, "link");
    remove_one(migration, "page");
}

void migration_unstore(struct migration *migration)
{
    char what[32];

    if (!migration->stored)
        return;
    snprintf(what, sizeof(what), "state.%" PRIu32, migration->record_number);
    remove_one(migration, what);
    migration_unstore_helper(migration);
    migration->stored = false;
}

int migration_make_room(struct manager *manager, uint32_t n_streams, sd_bus_error *error)
{
    const size_t n = STORED_BESIDES + n_streams + manager->n_running; /* one for each one's next record */
    struct migration *migration, *next;

    for (migration = TAILQ_FIRST(&manager->migrations); migration && !store_has_room(manager->store, n);
         migration = next) {
        next = TAILQ_NEXT(migration, entry);
        if (migration->state == STATE_FINISHED)
            migration_forget(migration);
    }
    if (store_has_room(manager->store, n))
        return 0;
    return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                     "The FD store is full, so that this migration would not outlive a restart of vmferryd "
                     "(FileDescriptorStoreMax= of vmferryd.service). Wait for others to end.");
}
