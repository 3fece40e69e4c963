/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/bus/waiters.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "broker/errors.h"
#include "common/cleanup.h"

struct waiter {
    TAILQ_ENTRY(waiter) next;
    const struct migration *migration;
    sd_bus_message *m; /* owned */
};

/* A question for a name. */
struct tie {
    TAILQ_ENTRY(tie) next;
    struct waiters *all;
    char *name; /* owned */
    sd_bus_slot *slot;
};

void waiters_init(struct waiters *waiters, sd_bus *bus, const struct registry *registry)
{
    *waiters = (struct waiters){.bus = bus, .registry = registry};
    TAILQ_INIT(&waiters->waiting);
    TAILQ_INIT(&waiters->asked);
}

static void waiter_free(struct waiters *waiters, struct waiter *waiter)
{
    TAILQ_REMOVE(&waiters->waiting, waiter, next);
    sd_bus_message_unref(waiter->m);
    free(waiter);
}

static void tie_free(struct tie *tie)
{
    TAILQ_REMOVE(&tie->all->asked, tie, next);
    sd_bus_slot_unref(tie->slot);
    free(tie->name);
    free(tie);
}

void waiters_clear(struct waiters *waiters)
{
    while (!TAILQ_EMPTY(&waiters->waiting))
        waiter_free(waiters, TAILQ_FIRST(&waiters->waiting));
    while (!TAILQ_EMPTY(&waiters->asked))
        tie_free(TAILQ_FIRST(&waiters->asked));
}

/* ---- Wait() ---- */

int waiters_add(struct waiters *waiters, struct migration *migration, sd_bus_message *m, sd_bus_error *error)
{
    struct waiter *waiter;
    unsigned n = 0;

    TAILQ_FOREACH(waiter, &waiters->waiting, next)
    n += waiter->migration == migration;
    if (n == WAITERS_MAX)
        return error_set(error, VF_ERROR_LIMIT_EXCEEDED, "%d calls wait for migration %s already.",
                         WAITERS_MAX, migration_identity(migration)->id_text);
    waiter = calloc(1, sizeof(*waiter));
    if (!waiter)
        return -ENOMEM;
    waiter->migration = migration;
    waiter->m = sd_bus_message_ref(m);
    TAILQ_INSERT_HEAD(&waiters->waiting, waiter, next);
    return 1;
}

void waiters_reply(const struct migration *migration, sd_bus_message *m)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    const struct migration_status *status = migration_status(migration);

    if (status->result == VF_RESULT_DONE) {
        sd_bus_reply_method_return(m, "s", vf_result_to_string(status->result));
        return;
    }
    error_set(&error, migration_identity(migration)->error, "%s", status->message ? status->message : "");
    sd_bus_reply_method_error(m, &error);
}

void waiters_reply_all(struct waiters *waiters, const struct migration *migration)
{
    struct waiter *waiter, *next;

    for (waiter = TAILQ_FIRST(&waiters->waiting); waiter; waiter = next) {
        next = TAILQ_NEXT(waiter, next);
        if (waiter->migration != migration)
            continue;
        waiters_reply(migration, waiter->m);
        waiter_free(waiters, waiter);
    }
}

/* ---- Clients that go ---- */

void waiters_client_gone(struct waiters *waiters, const char *name)
{
    struct waiter *waiter, *next;
    const struct entry *entry;

    for (waiter = TAILQ_FIRST(&waiters->waiting); waiter; waiter = next) {
        next = TAILQ_NEXT(waiter, next);
        if (strcmp(sd_bus_message_get_sender(waiter->m), name) == 0)
            waiter_free(waiters, waiter);
    }
    for (entry = registry_next(waiters->registry, NULL); entry;
         entry = registry_next(waiters->registry, entry)) {
        const char *tied_to = migration_options(entry->migration)->tied_to;

        if (tied_to && strcmp(tied_to, name) == 0)
            migration_stop(entry->migration, VF_ERROR_CANCELLED, "Its caller has gone (tie-to-caller).");
    }
}

static int on_has_owner(sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    struct tie *tie = userdata;
    int there = 1;

    if (!sd_bus_message_is_method_error(reply, NULL) && sd_bus_message_read(reply, "b", &there) >= 0 &&
        !there)
        waiters_client_gone(tie->all, tie->name);
    tie_free(tie);
    return 0;
}

static void ask(struct waiters *waiters, const char *name)
{
    struct tie *tie = calloc(1, sizeof(*tie));

    if (!tie)
        return;
    tie->all = waiters;
    tie->name = strdup(name);
    TAILQ_INSERT_TAIL(&waiters->asked, tie, next);
    if (!tie->name ||
        sd_bus_call_method_async(waiters->bus, &tie->slot, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                 "org.freedesktop.DBus", "NameHasOwner", on_has_owner, tie, "s", name) < 0)
        tie_free(tie);
}

/* After a restart: a client that left the bus while no broker ran has sent no NameOwnerChanged to this one.
 * Unique names are never used twice by a bus, so that the name alone says whether it is the same client. */
void waiters_check_ties(struct waiters *waiters)
{
    const struct entry *entry;

    for (entry = registry_next(waiters->registry, NULL); entry;
         entry = registry_next(waiters->registry, entry))
        if (migration_options(entry->migration)->tied_to)
            ask(waiters, migration_options(entry->migration)->tied_to);
}
