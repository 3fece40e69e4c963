/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * All migrations of this broker: an entry for each, which holds what others than the migration itself look at
 * (quotas, admission, lists). The entry is a member of the migration; in a test it can stand alone.
 */

#include <stdbool.h>
#include <sys/queue.h>

#include "broker/migration/identity.h"

enum { REGISTRY_BUCKETS = 1024 };

struct migration;
struct stats_page;
struct supplied;

/* What the totals of the host take from it: see accounts.h. */
struct account {
    bool added;                 /* to the totals */
    bool timed;                 /* its downtime, too; or it was added as one that has none */
    uint64_t interrupted;       /* µs, those that are over */
    uint64_t interrupted_since; /* µs, CLOCK_MONOTONIC; 0: it is not interrupted */
};

struct entry {
    TAILQ_ENTRY(entry) next;
    LIST_ENTRY(entry) same_bucket;
    struct migration *migration; /* of which this is the entry */
    struct identity identity;
    const char *client_id;           /* borrowed; NULL: none */
    const char *ticket_digest;       /* borrowed; outgoing: ticket_digest() of its ticket; "": not known */
    const struct stats_page *page;   /* borrowed: the helper's counters */
    const struct supplied *supplied; /* borrowed: the sockets that it was given */
    uint32_t n_waiting;              /* sockets that wait to become a channel */
    bool restored;                   /* by a new broker: those that waited before are closed */
    struct account account;
};

struct registry {
    TAILQ_HEAD(, entry) entries;                  /* the oldest first */
    LIST_HEAD(, entry) buckets[REGISTRY_BUCKETS]; /* the same by id: each call on the bus looks for one */
    uint32_t n_running;
    uint32_t n_finished;
    void (*forget)(struct migration *migration); /* makes room: removes a finished one */
};

void registry_init(struct registry *registry, void (*forget)(struct migration *migration));

/* A migration that runs stays here until registry_remove(). */
void registry_add(struct registry *registry, struct entry *entry);
void registry_remove(struct registry *registry, struct entry *entry);

/* The one after previous, or (NULL) the oldest; NULL behind the last. */
struct entry *registry_next(const struct registry *registry, const struct entry *previous);

/* How many there are, finished ones too; and how many run. */
uint32_t registry_count(const struct registry *registry);
uint32_t registry_count_running(const struct registry *registry);

/* NULL when there is none. */
struct entry *registry_find(const struct registry *registry, enum message_role role, uint64_t id,
                            uint32_t number);

/* The one of this role and id after previous, or (NULL) the first; NULL behind the last. In no order. */
struct entry *registry_next_of_id(const struct registry *registry, enum message_role role, uint64_t id,
                                  const struct entry *previous);

/* The lowest number that no migration of this role and id has. */
uint32_t registry_free_number(const struct registry *registry, enum message_role role, uint64_t id);

/*
 * The one setter of a migration's state: logs the change, and counts. Refuses what cannot be (a finished
 * migration stays finished, and none waits again) and then returns false.
 */
bool registry_set_state(struct registry *registry, struct entry *entry, enum message_state state);

/*
 * Forgets finished ones until enough(userdata): each time the oldest one of the user that has the most of
 * them, so that no user's results go for another user's many.
 */
void registry_forget_until(struct registry *registry, bool (*enough)(void *userdata), void *userdata);
