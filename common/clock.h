/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The time in µs, by the three clocks that are asked for it. */

#include <stdint.h>
#include <systemd/sd-event.h>
#include <time.h>

static inline uint64_t clock_usec(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

/* CLOCK_MONOTONIC when this turn of the event loop began: the same for all that one event sets off. */
static inline uint64_t turn_now(sd_event *event)
{
    uint64_t now = 0;

    sd_event_now(event, CLOCK_MONOTONIC, &now);
    return now;
}

/* CLOCK_MONOTONIC at this moment. */
static inline uint64_t exact_now(void)
{
    return clock_usec(CLOCK_MONOTONIC);
}

/* CLOCK_REALTIME: since 1970. */
static inline uint64_t wall_now(void)
{
    return clock_usec(CLOCK_REALTIME);
}
