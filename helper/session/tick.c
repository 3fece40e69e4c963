/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/session/tick.h"

#include "common/clock.h"
#include "common/timer.h"
#include "helper/control/heartbeat.h"
#include "helper/session/end.h"
#include "helper/session/resume.h"

static void on_silence(struct session *session, unsigned ticks)
{
    const int seconds = (int)ticks * TICK / 1000000;

    if (session->state != STATE_WAITING)
        session_interrupt(session, "The peer has not been heard of for %d s.", seconds);
    else
        session_end(session, VF_ERROR_INTERRUPTED, false, "The peer did not greet within %d s.", seconds);
}

static void tick(struct session *session)
{
    const unsigned silence_max = session->recovery.timeout > 0 ? SILENCE_RESUME : SILENCE_MAX;
    uint64_t now = turn_now(session->event);

    counters_rate(&session->counters, now);
    ring_pool_trim(&session->pool); /* what was not used for a while goes back */
    peers_expire(session->peers);
    if (session_is_over(session))
        return;
    if (heartbeat_is_silent(session->control, silence_max))
        on_silence(session, silence_max);
    if (session->connection == CONNECTION_UP)
        heartbeat_ping(session->control, session->role == ROLE_OUTGOING, now);
}

static void tick_after(struct session *session, uint64_t usec)
{
    if (!session_is_over(session))
        timer_set(session->tick, usec);
}

static int on_tick(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct session *session = userdata;

    tick(session);
    tick_after(session, TICK);
    return 0;
}

int session_start_ticks(struct session *session)
{
    session->counters.rated_at = turn_now(session->event);
    return timer_arm(session->event, &session->tick, TICK, on_tick, session);
}

void session_tick_by_ping(struct session *session)
{
    uint64_t now = turn_now(session->event);

    if (session->role == ROLE_INCOMING && now - session->counters.rated_at >= TICK / 2) {
        tick(session);
        tick_after(session, TICK + TICK_GRACE);
    }
}
