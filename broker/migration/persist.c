/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/persist.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "broker/migration/internal.h"
#include "broker/migration/log.h"
#include "broker/migration/stored-names.h"
#include "broker/migration/streams.h"
#include "broker/release.h"
#include "broker/totals.h"
#include "common/cleanup.h"

/* ---- A migration and its record, side by side ---- */

static void text_set(char *field, size_t size, const char *text)
{
    if (text)
        message_text_set(field, size, text);
}

#define TEXT_SET(field, text) text_set(field, sizeof(field), text)

static char *text_of(const char *text)
{
    return text[0] != '\0' ? strdup(text) : NULL;
}

static void write_options(const struct options *options, struct record *record)
{
    record->security = options->security;
    record->expire = options->expire;
    record->resume_timeout = options->resume_timeout;
    record->bandwidth_limit = options->bandwidth_limit;
    record->expected_bytes = options->expected_bytes;
    TEXT_SET(record->client_id, options->client_id);
    TEXT_SET(record->tied_to, options->tied_to);
    TEXT_SET(record->layout, options->layout);
    record->n_streams = options->n_streams;
    memcpy(record->streams, options->streams, sizeof(record->streams));
    for (uint32_t i = 0; i < options->n_streams; i++)
        if (!options->sockets[i])
            record->own_paths |= 1U << i;
    record->n_endpoints = options->n_endpoints;
    memcpy(record->endpoints, options->endpoints, sizeof(record->endpoints));
}

int persist_read_options(const struct record *record, struct options *ret)
{
    *ret = (struct options){
        .security = record->security,
        .expire = record->expire,
        .resume_timeout = record->resume_timeout,
        .bandwidth_limit = record->bandwidth_limit,
        .expected_bytes = record->expected_bytes,
        .client_id = text_of(record->client_id),
        .tied_to = text_of(record->tied_to),
        .tie_to_caller = record->tied_to[0] != '\0',
        .n_streams = record->n_streams,
        .n_endpoints = record->n_endpoints,
        .no_endpoints = record->role == ROLE_INCOMING && !record->expects_peers,
        .has_owner = true,
        .owner_uid = record->owner_uid,
        .owner_gid = record->owner_gid,
        .has_group = record->owner_group,
    };
    memcpy(ret->layout, record->layout, sizeof(ret->layout));
    memcpy(ret->streams, record->streams, sizeof(ret->streams));
    memcpy(ret->endpoints, record->endpoints, sizeof(ret->endpoints));
    /* A path that the caller named is used as that caller may use it, and so is one of which nothing is
     * known. */
    for (uint32_t i = 0; i < record->n_streams; i++) {
        if (record->own_paths & (1U << i))
            continue;
        ret->sockets[i] = strdup(record->paths[i]);
        if (!ret->sockets[i])
            return -ENOMEM;
    }
    return 0;
}

static void write_sockets(const struct streams *streams, struct record *record)
{
    record->owner_uid = streams->owner.uid;
    record->owner_gid = streams->owner.gid;
    record->owner_group = streams->owner.group;
    TEXT_SET(record->directory, streams->directory);
    record->n_paths = record->n_streams;
    for (uint32_t i = 0; i < record->n_paths; i++)
        TEXT_SET(record->paths[i], streams->each[i].path);
}

static void read_sockets(struct streams *streams, const struct record *record)
{
    streams->directory = text_of(record->directory);
    for (uint32_t i = 0; i < record->n_paths; i++)
        memcpy(streams->each[i].path, record->paths[i], sizeof(streams->each[i].path));
}

static void write_ending(const struct ending *ending, struct record *record)
{
    record->ending = ending->error;
    record->farewell = ending->stage == ENDING_FAREWELL;
    TEXT_SET(record->ending_text, ending->text);
}

static void read_ending(struct ending *ending, const struct record *record)
{
    ending->error = record->ending;
    ending->stage = record->farewell                  ? ENDING_FAREWELL
                    : record->ending != VF_ERROR_NONE ? ENDING_TOLD
                                                      : ENDING_NO;
    ending->text = text_of(record->ending_text);
}

/* Of a finished one: the page goes with its helper. */
static void write_counters(const struct stats *stats, struct record *record)
{
    uint32_t n = STATS_READ(stats->n_channels);

    record->sent = STATS_READ(stats->sent);
    record->received = STATS_READ(stats->received);
    record->round_trip = STATS_READ(stats->round_trip_usec);
    record->reconnects = STATS_READ(stats->reconnects);
    for (uint32_t i = 0; i < n && i < STATS_CHANNELS_MAX; i++)
        if (stats->channels[i].state <= STATS_CHANNEL_LOST)
            record->channels[record->n_channels++] = stats->channels[i];
}

static void read_counters(struct stats_page *page, const struct record *record)
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
    page->stats = stats;
    page->detached = true;
}

static void write_report(const struct report *report, struct record *record)
{
    const struct progress *progress = &report->progress;
    const struct outcome *outcome = &report->outcome;

    record->phase = progress->phase;
    record->pass = progress->pass;
    record->memory_total = progress->memory_total;
    record->memory_remaining = progress->memory_remaining;
    record->dirty_rate = progress->dirty_rate;
    record->expected_downtime = progress->expected_downtime;
    record->disk_total = progress->disk_total;
    record->disk_remaining = progress->disk_remaining;
    record->fraction = report->fraction;
    record->rate = report->rate;
    record->remaining = report->remaining;
    record->outcome = outcome->outcome;
    record->told_by = report->by;
    record->downtime = outcome->downtime;
    record->total = outcome->total;
    TEXT_SET(record->host, outcome->host);
    TEXT_SET(record->run_state, outcome->run_state);
    TEXT_SET(record->reason, outcome->reason);
}

static void read_report(struct report *report, const struct record *record)
{
    *report = (struct report){
        .progress = {.phase = record->phase,
                     .pass = record->pass,
                     .memory_total = record->memory_total,
                     .memory_remaining = record->memory_remaining,
                     .dirty_rate = record->dirty_rate,
                     .expected_downtime = record->expected_downtime,
                     .disk_total = record->disk_total,
                     .disk_remaining = record->disk_remaining},
        .fraction = record->fraction,
        .rate = record->rate,
        .remaining = record->remaining,
        .by = record->told_by,
        .outcome = {.outcome = record->outcome, .downtime = record->downtime, .total = record->total},
    };
    memcpy(report->outcome.host, record->host, sizeof(record->host));
    memcpy(report->outcome.run_state, record->run_state, sizeof(record->run_state));
    memcpy(report->outcome.reason, record->reason, sizeof(record->reason));
}

static void write_account(const struct account *account, struct record *record)
{
    record->added = account->added;
    record->interrupted = account->interrupted;
    record->interrupted_since = account->interrupted_since;
}

/* The broker before this one may have been killed when the totals had it, and its record did not say so. */
static void read_account(struct migration *migration, const struct record *record)
{
    const struct totals *totals = migration->services->totals;
    const bool last = totals_is_last(totals, record->id, record->role, record->started);
    const bool timed = record->outcome != VF_OUTCOME_MOVED || record->downtime > 0;

    migration->entry.account =
        (struct account){.added = record->added || last,
                         .timed = (record->added && timed) || (last && totals->last_timed),
                         .interrupted = record->interrupted,
                         .interrupted_since = record->interrupted_since};
}

static void write_record(const struct migration *migration, struct record *record)
{
    const struct identity *identity = &migration->entry.identity;
    const struct migration_status *status = &migration->status;

    *record = (struct record){
        .id = identity->id,
        .role = identity->role,
        .uid = identity->uid,
        .started = identity->started,
        .state = identity->state,
        .error = identity->error,
        .result = status->result,
        .finished = status->finished,
        .gives_up = status->gives_up,
        .deadline = migration->bound.deadline,
        .expects_peers = migration->expects_peers,
    };
    TEXT_SET(record->vm, identity->vm);
    TEXT_SET(record->unit, identity->unit);
    TEXT_SET(record->ticket_digest, migration->ticket_digest);
    TEXT_SET(record->message, status->message);
    TEXT_SET(record->peer, status->peer);
    /* The helper has its secret already; the text is kept only for the same client-id, which gets it again.
     */
    if (migration->options.client_id)
        TEXT_SET(record->ticket, status->ticket);
    write_options(&migration->options, record);
    write_sockets(&migration->streams, record);
    write_ending(&migration->ending, record);
    write_report(&status->report, record);
    write_account(&migration->entry.account, record);
    if (identity->state == STATE_FINISHED && migration->helper.page.stats)
        write_counters(migration->helper.page.stats, record);
}

void persist_read(struct migration *migration, const struct record *record, uint32_t number)
{
    struct identity *identity = &migration->entry.identity;
    struct migration_status *status = &migration->status;

    migration->stored = true;
    migration->record_number = number;
    identity->started = record->started;
    identity->error = record->error;
    status->result = record->result;
    status->finished = record->finished;
    status->gives_up = record->gives_up;
    migration->bound.deadline = record->deadline;
    migration->expects_peers = record->expects_peers;
    snprintf(identity->unit, sizeof(identity->unit), "%s", record->unit);
    memcpy(migration->ticket_digest, record->ticket_digest, sizeof(migration->ticket_digest));
    status->message = text_of(record->message);
    memcpy(status->peer, record->peer, sizeof(status->peer));
    status->ticket = text_of(record->ticket);
    read_sockets(&migration->streams, record);
    read_ending(&migration->ending, record);
    read_report(&status->report, record);
    read_account(migration, record);
    if (record->state == STATE_FINISHED)
        read_counters(&migration->helper.page, record);
    registry_set_state(migration->services->registry, &migration->entry, record->state);
}

/* ---- In the store ---- */

/* The record in sealed memory, which cannot be changed any more; or a negative errno. */
static int make_memory(const uint8_t *data, size_t size)
{
    _cleanup_own_fd_ int fd = memfd_create("vmferry-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
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
    const struct identity *identity = &migration->entry.identity;
    struct store *store = migration->services->store;
    _cleanup_(record_draft_freep) struct record_draft *draft = NULL;
    _cleanup_own_fd_ int fd = -1;
    char name[STORE_NAME_MAX];

    if (!store_active(store) || store_frozen(store) || !migration->stored)
        return;
    draft = malloc(sizeof(*draft));
    if (draft) {
        write_record(migration, &draft->record);
        fd = make_memory(draft->data, record_encode(&draft->record, draft->data));
    }
    if (fd < 0) {
        migration_log(
            identity, LOG_WARNING, NULL,
            "Its state could not be stored (%s): a restart of vmferryd takes it for what it was before.",
            strerror(draft ? -fd : ENOMEM));
        return;
    }
    /* Put, then remove: a broker that is killed in between leaves two records, of which the higher number
     * counts. */
    stored_name(identity, name, "state.%" PRIu32, migration->record_number + 1);
    if (!store_put(store, name, fd, 0))
        return; /* the one that is there is older, but it is one */
    stored_name(identity, name, "state.%" PRIu32, migration->record_number++);
    store_remove(store, name, -1);
}

static void put(const struct migration *migration, const char *what, int fd)
{
    char name[STORE_NAME_MAX];

    stored_name(&migration->entry.identity, name, "%s", what);
    store_put(migration->services->store, name, fd, 0);
}

/* Borrows fd; see store_remove(). */
static void remove_one(const struct migration *migration, const char *what, int fd)
{
    char name[STORE_NAME_MAX];

    stored_name(&migration->entry.identity, name, "%s", what);
    store_remove(migration->services->store, name, fd);
}

/* The record last: without one the next broker tells the helper to end, so a half-stored migration ends
 * cleanly. `stored` is set before, since migration_save() does nothing for one that is not. */
void migration_store(struct migration *migration)
{
    put(migration, "link", helper_link_fd(migration->helper.link));
    put(migration, "page", migration->helper.page.fd);
    streams_store(&migration->streams);
    migration->stored = true;
    migration_save(migration);
}

void migration_unstore_helper(struct migration *migration)
{
    const struct helper_side *side = &migration->helper;

    remove_one(migration, "link", side->link ? helper_link_fd(side->link) : -1);
    remove_one(migration, "page", -1);
}

/* The record first, for the same reason. The listeners' names go with streams_close(). */
void migration_unstore(struct migration *migration)
{
    char what[32];

    if (!migration->stored)
        return;
    snprintf(what, sizeof(what), "state.%" PRIu32, migration->record_number);
    remove_one(migration, what, -1);
    migration_unstore_helper(migration);
    migration->stored = false;
}
