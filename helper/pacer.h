/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A token bucket: how many bytes all flows of a migration may take from QEMU. Pure; the time is the
 * caller's, in µs of CLOCK_MONOTONIC. The bucket holds 50 ms worth, so a second is kept to within 5 %.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pacer {
    uint64_t rate;     /* bytes/s; 0 = no limit */
    uint64_t at;       /* when it was last filled */
    int64_t tokens;    /* bytes */
    uint64_t round;    /* counts the refills */
    uint64_t share;    /* bytes that one of the flows may take until the next one */
    uint32_t fraction; /* of a byte, in millionths */
};

void pacer_set(struct pacer *pacer, uint64_t rate, uint64_t now);

/* A new round: every one of so many flows may take its share again. For the timer that wakes them all. */
void pacer_share(struct pacer *pacer, uint64_t now, uint32_t n_flows);

/* Fills the bucket and says how many bytes may be taken now. */
size_t pacer_allows(struct pacer *pacer, uint64_t now);

void pacer_take(struct pacer *pacer, size_t n);

/* Whether anything may be taken, by the last filling. */
bool pacer_open(const struct pacer *pacer);

/* µs from the last filling until it is worth trying again; 0 when it is open. */
uint64_t pacer_wait_usec(const struct pacer *pacer);
