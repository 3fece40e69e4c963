/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* vmferry-sim FIRST [COUNT [SECONDS]]: runs the schedules of seeds; one alone is told. */

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
    int n = snprintf(text, sizeof(text), "FAULT seed %" PRIu64 ": it crashed\n", sim.seed);

    if (write(STDERR_FILENO, text, (size_t)n) < 0)
        return;
}

static void on_crash(int signal)
{
    say_seed();
    _exit(1);
}

enum { LONGEST = 20 /* s of one schedule */ };

static void on_hang(int signal)
{
    static const char text[] = "A call into a helper does not return.\n";

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

int main(int argc, char *argv[])
{
    uint64_t first = argc > 1 ? strtoull(argv[1], NULL, 0) : 1;
    uint64_t count = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
    uint64_t limit = argc > 3 ? strtoull(argv[3], NULL, 0) * 1000 : UINT64_MAX;
    uint64_t began = real_msec(), n, hash = 0, steps = 0;

    signal(SIGABRT, on_crash);
    signal(SIGALRM, on_hang);
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_set_death_callback(say_seed);
#endif
    sim.talks = argc == 2;
    for (n = 0; n < count && real_msec() - began < limit; n++) {
        alarm(LONGEST);
        world_run(first + n);
        hash = hash * 31 + sim.hash;
        steps += sim.steps;
    }
    began = real_msec() - began;
    printf("%" PRIu64 " schedules from seed %" PRIu64 " on, %" PRIu64 " steps, %" PRIu64 " ms, %" PRIu64
           " a minute; hash %016" PRIx64 "\n",
           n, first, steps, began, began > 0 ? n * 60000 / began : 0, hash);
    return 0;
}
