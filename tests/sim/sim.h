/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A world in one process in which two real sessions (all of helper/ but its main loop, its gate and its
 * sandbox) carry migrations. Everything that they could ask a kernel for is here: the clock, the event loop,
 * descriptors. All that happens follows from one number, the seed, so that a run can be had again.
 *
 *     sim.c      the seed's numbers, the clock, what is told and what fails
 *     event.c    sd-event(3), with the order of what is due left to chance
 *     kernel.c   connections, pipes, links to brokers, and descriptors of them
 *     calls.c    the system calls of helper/ (-Wl,--wrap)
 *     side.c     one helper with its workers
 *     broker.c   the broker of one side, which dies and comes back
 *     network.c  what is between the helpers: cuts, stalls, the gate, strangers
 *     qemu.c     the QEMUs, which know what they must receive
 *     lies.c     frames and messages that are not true
 *     world.c    one schedule: who is there, what goes wrong, whose turn it is, what must come of it
 *     main.c     the command line
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SOURCE, DESTINATION, WORLD };

#define SECOND UINT64_C(1000000)
#define NEVER  UINT64_MAX

/* What fails once, where a schedule is to have that. */
enum failing {
    FAILS_NOTHING,
    FAILS_ALLOCATION,
    FAILS_CALL,
    FAILS_TRUTH, /* lies.h; more than once */
};

struct sim {
    uint64_t seed, rng;
    uint64_t now;   /* µs */
    uint64_t hash;  /* of all that was told */
    uint64_t steps; /* of this schedule */
    int current;    /* the side whose code runs; WORLD: none */
    bool talks;
    enum failing fails; /* the one of this number, */
    uint64_t fails_at;  /* from 1 on, that a helper asks for */
    uint64_t asked;     /* for so many */
    bool has_failed;
    bool has_lied; /* what QEMUs are given, and which side is done, may be false from then on */
};

extern struct sim sim;

void sim_begin(uint64_t seed);

/* Whether what a helper asks for now is what fails. */
bool fails(enum failing what);

/* Zeroed memory of the world's own. */
void *world_alloc(size_t size);

/* 0 … n − 1. */
uint64_t pick(uint64_t n);

/* Of a thousand times. */
bool chance(unsigned permille);

/* 0 … max, small ones more often. */
uint64_t spread(uint64_t max);

void tell(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* What must not be has come to be: ends the process, and says of which seed. */
_Noreturn void fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

static inline uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}
