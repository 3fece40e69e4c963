/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Timers that fire once, usec µs from now, and stay with their owner to be set again. */

#include <stdint.h>
#include <systemd/sd-event.h>
#include <time.h>

enum { TIMER_ACCURACY = 1000 /* µs by which one may be late */ };

/* Sets a timer that exists already, whether it runs or not. */
static inline void timer_set(sd_event_source *timer, uint64_t usec)
{
    sd_event_source_set_time_relative(timer, usec);
    sd_event_source_set_enabled(timer, SD_EVENT_ONESHOT);
}

/* The same, and makes the timer first where *timer is NULL. ≥ 0 or a negative errno. */
static inline int timer_arm(sd_event *event, sd_event_source **timer, uint64_t usec,
                            sd_event_time_handler_t handler, void *userdata)
{
    if (!*timer)
        return sd_event_add_time_relative(event, timer, CLOCK_MONOTONIC, usec, TIMER_ACCURACY, handler,
                                          userdata);
    timer_set(*timer, usec);
    return 0;
}

/* The same, but leaves a timer alone that runs already. */
static inline int timer_arm_once(sd_event *event, sd_event_source **timer, uint64_t usec,
                                 sd_event_time_handler_t handler, void *userdata)
{
    int enabled = SD_EVENT_OFF;

    if (*timer && sd_event_source_get_enabled(*timer, &enabled) >= 0 && enabled != SD_EVENT_OFF)
        return 0;
    return timer_arm(event, timer, usec, handler, userdata);
}
