/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What bounds the state that a migration is in: one time at most, which a restart of the broker keeps. */

#include <stdint.h>
#include <systemd/sd-event.h>

#include "broker/migration/identity.h"

struct bound {
    sd_event *event;                 /* borrowed */
    const struct identity *identity; /* borrowed; for the log */
    sd_event_time_handler_t reached; /* userdata: the migration */
    struct migration *migration;     /* borrowed */
    sd_event_source *timer;          /* owned */
    uint64_t deadline;               /* µs, CLOCK_MONOTONIC; 0: nothing bounds it */
};

/* Bounds the state that it is in now, in place of what did before; usec from now. */
void bound_set(struct bound *bound, uint64_t usec);

/* Sets the timer for a deadline that is known already; none for 0. A failure is logged, and the state is not
 * bounded then. */
void bound_arm(struct bound *bound);

void bound_clear(struct bound *bound);
