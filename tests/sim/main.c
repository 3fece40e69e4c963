/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * vmferry-sim FIRST [COUNT [SECONDS]]       runs the schedules of seeds; one alone is told
 * vmferry-sim lies FIRST [COUNT [SECONDS]]  likewise; a peer or a broker says what is not true
 * vmferry-sim allocation|call FIRST [COUNT [SECONDS]]
 *                                           each of them once with its first allocation (system call)
 * failing, once with its second, … vmferry-sim allocation|call SEED/NUMBER   tells one of these
 */

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "world.h"

/* The world's own clock says what it wants. */
static uint64_t real_msec(void)
{
    struct timeval now;

    gettimeofday(&now, NULL);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_usec / 1000;
}

static void say_seed(void)
{
    char text[64];
    int n;

    sim.current = WORLD; /* who can say it */
    n = snprintf(text, sizeof(text), "FAULT seed %" PRIu64 ": it crashed\n", sim.seed);

    if (write(STDERR_FILENO, text, (size_t)n) < 0)
        return;
}

static void on_crash(int signal)
{
    say_seed();
    _exit(1);
}

enum { LONGEST = 40 /* s of one schedule */ };

static void on_hang(int signal)
{
    static const char text[] = "A call into a helper does not return.\n";

    sim.current = WORLD;
    if (write(STDERR_FILENO, text, sizeof(text) - 1) > 0)
        on_crash(signal);
    _exit(1);
}

#ifdef __SANITIZE_ADDRESS__
void __sanitizer_set_death_callback(void (*callback)(void));
const char *__asan_default_options(void);

/* What is freed is kept long enough for a schedule, and its pages are used again. */
__attribute__((visibility("default"))) const char *__asan_default_options(void)
{
    return "quarantine_size_mb=4:thread_local_quarantine_size_kb=64:malloc_context_size=4:max_malloc_fill_"
           "size=64:"
           "allocator_release_to_os_interval_ms=-1";
}
#endif

/* Each that a schedule has fails once; returns how many there were. */
static uint64_t fail_each(uint64_t seed, uint64_t until)
{
    sim.fails_at = 0;
    do {
        sim.fails_at++;
        alarm(LONGEST);
        world_run(seed);
    } while (sim.has_failed && real_msec() < until);
    return sim.fails_at - sim.has_failed;
}

static void run(uint64_t first, uint64_t count, uint64_t seconds)
{
    uint64_t began = real_msec(), n, hash = 0, steps = 0, failed = 0, took;

    for (n = 0; n < count && real_msec() - began < seconds * 1000; n++) {
        alarm(LONGEST);
        if (sim.fails == FAILS_ALLOCATION || sim.fails == FAILS_CALL)
            failed += fail_each(first + n, began + seconds * 1000);
        else
            world_run(first + n);
        hash = hash * 31 + sim.hash;
        steps += sim.steps;
    }
    took = real_msec() - began;
    if (failed > 0)
        printf("%" PRIu64 " failed once each; ", failed);
    printf("%" PRIu64 " schedules from seed %" PRIu64 " on, %" PRIu64 " steps, %" PRIu64 " ms, %" PRIu64
           " a minute; hash %016" PRIx64 "\n",
           n, first, steps, took, took > 0 ? n * 60000 / took : 0, hash);
}

static uint64_t argument(int argc, char *argv[], int i, uint64_t otherwise)
{
    return argc > i ? strtoull(argv[i], NULL, 0) : otherwise;
}

int main(int argc, char *argv[])
{
    int first = 1;
    char *at;

    signal(SIGABRT, on_crash);
    signal(SIGALRM, on_hang);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_set_death_callback(say_seed);
#endif
    if (argc > 1 && strcmp(argv[1], "allocation") == 0)
        sim.fails = FAILS_ALLOCATION;
    else if (argc > 1 && strcmp(argv[1], "call") == 0)
        sim.fails = FAILS_CALL;
    else if (argc > 1 && strcmp(argv[1], "lies") == 0)
        sim.fails = FAILS_TRUTH;
    first += sim.fails != FAILS_NOTHING;
    at = argc > first ? strchr(argv[first], '/') : NULL;
    sim.talks = argc == first + 1;
    if (at) {
        sim.fails_at = strtoull(at + 1, NULL, 0);
        world_run(strtoull(argv[first], NULL, 0));
        return 0;
    }
    run(argument(argc, argv, first, 1), argument(argc, argv, first + 1, 1),
        argument(argc, argv, first + 2, 1000000));
    return 0;
}
