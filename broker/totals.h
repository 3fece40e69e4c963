/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What all migrations of this host have come to, those that are forgotten too. It stands in a file of the
 * runtime directory, so that it outlives the broker, however that ends, and goes with the host's boot. Each
 * migration is added once, when it is finished and its outcome is told, or when it is forgotten; its downtime
 * is added once, too, and may be told later. The file is written before the migration's own record says so:
 * it names the last one that was added, and a broker that was killed between the two finds that there.
 */

#include <stdbool.h>
#include <stdint.h>

#include "common/error.h"
#include "common/message.h"
#include "common/outcome.h"

enum {
    TOTALS_ROLES = 2,
    TOTALS_WORDS = VF_OUTCOME_MAX_ - 1 + VF_RESULT_MAX_ - 1, /* what a migration can come to */
    TOTALS_BOUNDS = 9,                                       /* of the downtimes */
};

/* One migration. */
struct tally {
    uint64_t id, started; /* with its role they name it */
    uint32_t role;        /* enum message_role */
    uint32_t outcome;     /* enum vf_outcome; none: result counts */
    uint32_t result;      /* enum vf_result, not none */
    uint64_t downtime;    /* µs; 0: not told, or it has not moved */
    uint64_t sent, received, reconnects, interrupted /* µs */;
};

struct totals_sums {
    uint64_t since; /* µs, CLOCK_REALTIME: when they began */
    uint64_t migrations[TOTALS_ROLES][TOTALS_WORDS];
    uint64_t sent, received, reconnects, interrupted;
    uint64_t downtimes[TOTALS_BOUNDS + 1]; /* how many took at most that; the last one: how many there are */
    uint64_t downtime;                     /* µs, all of them */
};

struct totals {
    const char *directory; /* borrowed; NULL: they are kept in memory only */
    struct totals_sums sums;
    uint64_t last_id, last_started; /* which was added last */
    uint32_t last_role;
    uint32_t last_timed; /* bool: its downtime, too */
};

/* µs, rising. */
extern const uint64_t totals_bounds[TOTALS_BOUNDS];

/* The word for the position in a line of migrations: an outcome, "carried", "failed", … */
const char *totals_word(uint32_t position);

/* Takes over what the broker before this one has left in this directory (NULL: none), which is borrowed. */
void totals_open(struct totals *totals, const char *directory);

/* Adds one, and writes the file. */
void totals_add(struct totals *totals, const struct tally *tally);

/* Adds the downtime of one that was added without, and writes the file. */
void totals_add_downtime(struct totals *totals, const struct tally *tally);

/* Whether this one was added last. */
bool totals_is_last(const struct totals *totals, uint64_t id, uint32_t role, uint64_t started);
