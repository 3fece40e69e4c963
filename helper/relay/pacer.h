/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A token bucket: how many bytes all flows of a migration may take from QEMU. Pure; the time is the
 * caller's, in µs of CLOCK_MONOTONIC. The bucket holds 50 ms worth, so a second is kept to within 5 %.
 */

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Its flows may be in several threads: each call is one step. */
struct pacer {
    pthread_mutex_t lock;
    uint64_t rate;     /* bytes/s; 0 = no limit */
    uint64_t at;       /* when it was last filled */
    int64_t tokens;    /* bytes */
    uint64_t round;    /* counts the refills */
    uint64_t share;    /* bytes that one of the flows may take until the next one */
    uint32_t fraction; /* of a byte, in millionths */
};

#define PACER_INIT                        \
    {                                     \
        .lock = PTHREAD_MUTEX_INITIALIZER \
    }

/* What one flow has left of its share, and of which round that is; zeroed at first. */
struct pacer_share {
    uint64_t round;
    uint64_t left; /* bytes */
};

/* Starts anew at this rate (bytes/s; 0: no limit), with an empty bucket. The pacer must be PACER_INIT before.
 */
void pacer_set(struct pacer *pacer, uint64_t rate, uint64_t now);

/* A new round: every one of so many flows may take its share again. For the timer that wakes them all. */
void pacer_next_round(struct pacer *pacer, uint64_t now, uint32_t n_flows);

/* Fills the bucket and says how many bytes the flow may take now: no more than its share of this round. */
size_t pacer_allows(struct pacer *pacer, const struct pacer_share *share, uint64_t now);

/* The flow has taken n bytes. What was more than it was allowed is owed: the bucket fills up to 0 first. */
void pacer_take(struct pacer *pacer, struct pacer_share *share, size_t n);

/* Whether the flow may take nothing now, by the last filling. */
bool pacer_holds_back(struct pacer *pacer, const struct pacer_share *share);

/* µs from the last filling until it is worth trying again; 0 when it is open. */
uint64_t pacer_wait_usec(struct pacer *pacer);
