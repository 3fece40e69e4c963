/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/channel/pace.h"

#include "common/clock.h"
#include "common/timer.h"
#include "helper/limits.h"

void pace_init(struct pace *pace, sd_event *event, void (*on_round)(void *userdata), void *userdata)
{
    *pace = (struct pace){.pacer = PACER_INIT, .event = event, .on_round = on_round, .userdata = userdata};
}

void pace_clear(struct pace *pace)
{
    pace->timer = sd_event_source_disable_unref(pace->timer);
}

void pace_set_limit(struct pace *pace, uint64_t limit)
{
    pacer_set(&pace->pacer, limit, turn_now(pace->event));
}

void pace_next_round(struct pace *pace, uint32_t n_flows)
{
    pacer_next_round(&pace->pacer, turn_now(pace->event), n_flows);
}

static int on_pace(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct pace *pace = userdata;

    pace->on_round(pace->userdata);
    return 0;
}

void pace_wait(struct pace *pace)
{
    uint64_t wait = pacer_wait_usec(&pace->pacer);

    if (wait == 0)
        wait = PACE_ROUND; /* there is something in the bucket, but this channel has had its part */
    if (!pace->timer &&
        sd_event_add_time(pace->event, &pace->timer, CLOCK_MONOTONIC, 0, 1, on_pace, pace) >= 0)
        sd_event_source_set_enabled(pace->timer, SD_EVENT_OFF);
    timer_arm_once(pace->event, &pace->timer, wait, on_pace, pace);
}
