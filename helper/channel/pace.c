/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/session/session.h"

#include "common/clock.h"

/* The bandwidth limit, which all channels share. */

void channel_share_out(struct session *session)
{
    pacer_next_round(&session->pacer, turn_now(session->event), session->n_living);
}

static int on_pace(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct session *session = userdata;

    /* First of all, so that each channel sees that there is something to be had again. */
    channel_share_out(session);
    channel_update_all(session);
    return 0;
}

/* Where the bandwidth limit holds a flow back, nobody's poll wakes it. */
void channel_pace(struct session *session)
{
    uint64_t wait = pacer_wait_usec(&session->pacer);
    int enabled = SD_EVENT_OFF;

    if (wait == 0)
        wait = PACE_ROUND; /* there is something in the bucket, but this channel has had its share */
    if (!session->pace_timer) {
        sd_event_add_time_relative(session->event, &session->pace_timer, CLOCK_MONOTONIC, wait, 1, on_pace,
                                   session);
        return;
    }
    sd_event_source_get_enabled(session->pace_timer, &enabled);
    if (enabled == SD_EVENT_OFF) {
        sd_event_source_set_time_relative(session->pace_timer, wait);
        sd_event_source_set_enabled(session->pace_timer, SD_EVENT_ONESHOT);
    }
}
