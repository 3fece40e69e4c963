/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/restore.h"

/* Makes the migrations of the broker before this one again, from what the FD store holds: see stored-names.h.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/migration/internal.h"
#include "broker/migration/log.h"
#include "broker/migration/migration.h"
#include "broker/migration/persist.h"
#include "broker/migration/setup.h"
#include "broker/migration/stored-names.h"
#include "broker/migration/streams.h"
#include "broker/net/port.h"
#include "common/cleanup.h"
#include "common/clock.h"

enum {
    GRACE = 5000000 /* µs that a restored migration has at least: what its helper said is still to be read */
};

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

/* ---- The descriptors ---- */

static int take(struct migration *migration, const char *what)
{
    char name[STORE_NAME_MAX];

    stored_name(&migration->entry.identity, name, "%s", what);
    return store_take(migration->services->store, name);
}

/* One socket that connects; or that was supplied to an older broker, which stored these, too. Those of a
 * finished migration are dropped with what is left. */
static void take_socket(struct migration *migration, const char *name)
{
    const char *what = strrchr(name, '-') + 1;
    uint32_t number;
    char end;
    int fd;

    if (migration->entry.identity.state == STATE_FINISHED)
        return;
    if (sscanf(what, "peer.%" SCNu32 "%c", &number, &end) == 1) {
        fd = store_take(migration->services->store, name);
        store_remove(migration->services->store, name, fd);
        if (queue_put(&migration->dials.brought, fd, false) < 0)
            return;
    } else if (!streams_restore_one(&migration->streams, name, what, &fd)) {
        return;
    }
    if (fd >= 0)
        supplied_remember(&migration->supplied, fd); /* none may come twice to us, either */
}

static void take_helper(struct migration *migration)
{
    struct helper_side *side = &migration->helper;
    const bool finished = migration->entry.identity.state == STATE_FINISHED;
    int fd = take(migration, "link"), page = take(migration, "page"), r = -ENOENT;

    if (finished)
        fd_closep(&page); /* the record has its counters */
    else if (page < 0 || stats_page_map(&side->page, page) < 0)
        migration_log(&migration->entry.identity, LOG_WARNING, NULL,
                      "Its counters are lost: their page was not in the FD store.");
    if (fd >= 0)
        r = helper_link_adopt(migration->services->helpers, fd, migration->entry.identity.unit, PHASE_RELAY,
                              &migration_helper_handlers, migration, &side->link);
    if (r >= 0)
        helper_side_sync(side);
    else if (!finished)
        migration_lost(migration, "Its helper was not in the FD store when vmferryd started again.");
}

/* ---- One migration ---- */

/*
 * names: all that the store holds of it, in the order in which it was put. The port is held before anything
 * can end the migration, which would release it. The helper comes last: what it has said waits in its socket,
 * and take_helper() ends the migration where there is none, with all that was restored before.
 */
static int make(const struct migration_services *services, const struct record *record,
                const struct stored_name *names, size_t n)
{
    _cleanup_(options_clear) struct options options;
    uint64_t earliest = turn_now(services->event) + GRACE;
    struct migration *migration;
    int r = persist_read_options(record, &options);

    if (r >= 0)
        r = migration_new(services, record->role, record->id, names[0].of_id, record->vm, &options,
                          record->uid, &migration);
    if (r < 0)
        return r;
    persist_read(migration, record, names[0].number);
    migration->entry.restored = true;
    /* CLOCK_MONOTONIC, which goes on over a restart of the broker: a deadline may have passed while none ran.
     */
    if (migration->bound.deadline > 0 && migration->bound.deadline < earliest)
        migration->bound.deadline = earliest;
    if (migration->expects_peers)
        port_hold(services->port);
    bound_arm(&migration->bound);
    streams_restore(&migration->streams);
    for (size_t i = 0; i < n; i++)
        take_socket(migration, names[i].text);
    if (record->state != STATE_FINISHED || record->farewell)
        take_helper(migration);
    migration_log(&migration->entry.identity, LOG_DEBUG, NULL, "Taken over: %s.",
                  state_text(migration->entry.identity.state));
    return 0;
}

/* A helper without a migration tells its peer and its QEMU, and goes. */
static void end_helper(struct store *store, const char *name)
{
    _cleanup_fd_ int fd = store_take(store, name);
    union message m = {.end.error = VF_ERROR_HELPER_FAILED};

    if (fd < 0)
        return; /* its migration has it */
    message_text_set(m.end.text, sizeof(m.end.text), "Its state was lost in a restart of vmferryd.");
    message_send(fd, MESSAGE_END, &m, -1);
    shutdown(fd, SHUT_WR);
    store_remove(store, name, fd);
}

static bool restore_one(const struct migration_services *services, const struct stored_name *names, size_t n,
                        struct record_draft *draft)
{
    _cleanup_fd_ int fd = store_take(services->store, names->text);
    const char *why = read_record(fd, draft);

    if (!why && (draft->record.id != names->id || draft->record.role != names->role))
        why = "it is that of another migration";
    if (!why && make(services, &draft->record, names, n) < 0)
        why = "there is no memory";
    if (!why)
        return true;
    log_event(LOG_ERR, NULL, NULL, "The stored state '%s' cannot be used: %s. Its migration ends.",
              names->text, why);
    store_remove(services->store, names->text, -1);
    return false;
}

/* By its newest record. An older one was yet to be removed, and is looked at only where the newer is no good.
 */
static void restore_group(const struct migration_services *services, const struct stored_group *group,
                          struct record_draft *draft)
{
    bool restored = false;

    for (size_t i = 0; i < group->n && group->names[i].record; i++)
        if (restored)
            store_remove(services->store, group->names[i].text, -1);
        else
            restored = restore_one(services, &group->names[i], group->n - i, draft);
}

void migration_restore_all(const struct migration_services *services)
{
    _cleanup_(record_draft_freep) struct record_draft *draft = malloc(sizeof(*draft));
    const struct registry *registry = services->registry;
    size_t n, n_groups;
    _cleanup_free_ struct stored_name *names = stored_names_sort(services->store, &n);
    _cleanup_free_ struct stored_group *groups = stored_names_group(names, n, &n_groups);

    /* What no migration has taken after this belongs to none: helpers are told to end, the rest is dropped.
     */
    for (size_t i = 0; draft && i < n_groups; i++)
        restore_group(services, &groups[i], draft);
    for (size_t i = 0; i < n; i++) {
        const char *what = names[i].text + strlen(names[i].text) - strlen("-link");

        if (strcmp(what, "-link") == 0)
            end_helper(services->store, names[i].text);
    }
    store_drop_rest(services->store);
    if (registry->n_running + registry->n_finished > 0)
        log_event(LOG_INFO, NULL, NULL,
                  "Took over from the last vmferryd: %" PRIu32 " migrations, and %" PRIu32 " finished ones.",
                  registry->n_running, registry->n_finished);
}
