/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The bandwidth limit, which all channels share: rounds in which each may take its part. */

#include <stdint.h>
#include <systemd/sd-event.h>

#include "helper/relay/pacer.h"

struct pace {
    struct pacer pacer;
    sd_event *event; /* borrowed */
    sd_event_source *timer;
    void (*on_round)(void *userdata);
    void *userdata;
};

/* on_round: begin a new round with pace_next_round(), and let all channels go on. Borrows all. */
void pace_init(struct pace *pace, sd_event *event, void (*on_round)(void *userdata), void *userdata);
void pace_clear(struct pace *pace);

/* bytes/s; 0: no limit. */
void pace_set_limit(struct pace *pace, uint64_t limit);

/* Each of so many flows may take its part again. */
void pace_next_round(struct pace *pace, uint32_t n_flows);

/* The limit holds a flow back, which no poll will wake: sees to it that a round begins when it is worth it.
 */
void pace_wait(struct pace *pace);
