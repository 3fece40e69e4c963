/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/bound.h"

#include <string.h>

#include "broker/migration/log.h"
#include "common/clock.h"

void bound_arm(struct bound *bound)
{
    int r;

    bound->timer = sd_event_source_disable_unref(bound->timer);
    if (bound->deadline == 0)
        return;
    r = sd_event_add_time(bound->event, &bound->timer, CLOCK_MONOTONIC, bound->deadline, 0, bound->reached,
                          bound->migration);
    if (r < 0)
        migration_log(bound->identity, LOG_ERR, NULL, "Failed to set a timer: %s", strerror(-r));
}

void bound_set(struct bound *bound, uint64_t usec)
{
    bound->deadline = turn_now(bound->event) + usec;
    bound_arm(bound);
}

void bound_clear(struct bound *bound)
{
    bound->timer = sd_event_source_disable_unref(bound->timer);
    bound->deadline = 0;
}
