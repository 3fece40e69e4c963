/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/session/session.h"

#include "common/clock.h"

/*
 * Once a second: is the peer there, how fast is it, who has not proved himself in time. The source pings, and
 * the destination does its part when a ping has come: a migration that idles wakes its helpers as rarely as
 * that allows, for there may be very many. A destination that misses the pings does its part, and pings, by
 * itself.
 */

static unsigned silence_max(const struct session *session)
{
    return session->resume_timeout > 0 ? SILENCE_RESUME : SILENCE_MAX;
}

static void control_silent(struct session *session)
{
    const int seconds = (int)silence_max(session) * TICK / 1000000;

    if (session->state != STATE_WAITING)
        session_interrupt(session, "The peer has not been heard of for %d s.", seconds);
    else
        session_end(session, VF_ERROR_INTERRUPTED, false, "The peer did not greet within %d s.", seconds);
}

static bool ping_is_due(const struct session *session, uint64_t now)
{
    const struct control *control = &session->control;

    if (!control->greeted || control->pinged != 0 || session_halted(session))
        return false;
    return session->role == ROLE_OUTGOING || control->silence > 1 || control->measured == 0 ||
           now - control->measured >= TRIP;
}

static void tick(struct session *session, uint64_t now)
{
    struct control *control = &session->control;

    counters_rate(&session->counters, now);
    ring_pool_trim(&session->pool); /* what was not used for a while goes back */
    for (size_t i = 0; i < PEERS_MAX && !session->over; i++)
        peer_expire(&session->peers[i], now);
    if (session->over)
        return;
    if (control->carrier && ++control->silence > silence_max(session))
        control_silent(session);
    if (ping_is_due(session, now)) {
        struct frame ping = {.type = FRAME_PING, .cookie = exact_now()};

        control->pinged = ping.cookie;
        control_send(session, &ping);
    }
}

static void tick_after(struct session *session, uint64_t usec)
{
    if (session->over)
        return;
    sd_event_source_set_time_relative(session->tick, usec);
    sd_event_source_set_enabled(session->tick, SD_EVENT_ONESHOT);
}

static int on_tick(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct session *session = userdata;

    tick(session, turn_now(session->event));
    tick_after(session, TICK);
    return 0;
}

int heartbeat_start(struct session *session)
{
    session->counters.rated_at = turn_now(session->event);
    return sd_event_add_time_relative(session->event, &session->tick, CLOCK_MONOTONIC, TICK, 1000, on_tick,
                                      session);
}

void heartbeat_on_ping(struct session *session, uint64_t cookie)
{
    struct frame pong = {.type = FRAME_PONG, .cookie = cookie};
    uint64_t now = turn_now(session->event);

    control_send(session, &pong);
    if (session->role == ROLE_INCOMING && now - session->counters.rated_at >= TICK / 2) {
        tick(session, now);
        tick_after(session, TICK + TICK_GRACE);
    }
}

bool heartbeat_on_pong(struct session *session, uint64_t cookie)
{
    struct control *control = &session->control;
    uint64_t now = exact_now(); /* the turn may have begun before the answer came */

    if (control->pinged == 0 || cookie != control->pinged)
        return false;
    STATS_WRITE(session->counters.page->round_trip_usec, now - control->pinged);
    control->measured = turn_now(session->event);
    control->pinged = 0;
    return true;
}
