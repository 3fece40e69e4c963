/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sim.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "qemu.h"

struct sim sim;

/* splitmix64 */
static uint64_t next(void)
{
    uint64_t z = sim.rng += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void sim_begin(uint64_t seed)
{
    sim = (struct sim){
        .seed = seed,
        .rng = seed,
        .now = 1000 * SECOND,
        .current = WORLD,
        .talks = sim.talks,
        .fails = sim.fails,
        .fails_at = sim.fails_at,
    };
}

bool fails(enum failing what)
{
    if (sim.fails != what || sim.current == WORLD || ++sim.asked != sim.fails_at)
        return false;
    sim.has_failed = true;
    tell("%s fails", what == FAILS_CALL ? "a system call" : "an allocation");
    return true;
}

void *__real_calloc(size_t n, size_t size); /* calls.c has the other one */

void *world_alloc(size_t size)
{
    return __real_calloc(1, size);
}

uint64_t pick(uint64_t n)
{
    return n > 1 ? next() % n : 0;
}

bool chance(unsigned permille)
{
    return pick(1000) < permille;
}

uint64_t spread(uint64_t max)
{
    unsigned bits = 0;

    while (bits < 63 && (max >> bits) > 0)
        bits++;
    return earlier(pick(UINT64_C(1) << pick(bits + 1)), max);
}

void tell(const char *format, ...)
{
    static const char *const sides[] = {"source     ", "destination", "           "};
    char text[512];
    va_list args;
    int n;

    /* What is told is what a replay is compared by; the text is made only where it is read. */
    for (const char *c = format; *c; c++)
        sim.hash = (sim.hash ^ (uint8_t)*c) * UINT64_C(0x100000001b3);
    sim.hash ^= sim.now + sim.rng;
    if (!sim.talks)
        return;
    va_start(args, format);
    n = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    printf("%10.6f %s %.*s\n", (double)(sim.now - 1000 * SECOND) / 1e6, sides[sim.current], n, text);
}

void fault(const char *format, ...)
{
    va_list args;

    qemus_tell();
    fflush(stdout);
    fprintf(stderr, "FAULT seed %" PRIu64 " at %.6f s: ", sim.seed, (double)(sim.now - 1000 * SECOND) / 1e6);
    if (sim.fails != FAILS_NOTHING)
        fprintf(stderr, "(%s %" PRIu64 ") ", sim.fails == FAILS_CALL ? "call" : "allocation", sim.fails_at);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    _Exit(1);
}
