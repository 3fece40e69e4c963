/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * How many helpers to keep ready: as many as were taken within two seconds, lately. Calls that come together
 * then find one each, and a broker that makes a migration now and then keeps one. Does no I/O, and knows no
 * clock: `now` is µs of any clock that does not go back.
 */

#include <stdint.h>

/* µs; helpers taken within it were needed together. */
#define SPARES_BURST ((uint64_t)2000000)
/* µs; the largest burst counts in its period and the next one. */
#define SPARES_PERIOD ((uint64_t)300000000)

struct spares {
    unsigned max;       /* never more; 0: none at all */
    unsigned burst;     /* helpers taken since the burst began */
    unsigned peak;      /* the largest burst of this period */
    unsigned last_peak; /* and of the one before */
    uint64_t burst_began;
    uint64_t period_began;
};

/* A helper was taken, be it a spare or not. */
void spares_take(struct spares *spares, uint64_t now);

/* How many to keep: one at least, where there may be any. */
unsigned spares_wanted(struct spares *spares, uint64_t now);

/* µs from now until fewer may be wanted; UINT64_MAX: never, unless more are taken. */
uint64_t spares_fall_in(struct spares *spares, uint64_t now);
