/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/session/complete.h"

#include "common/clock.h"
#include "common/timer.h"
#include "helper/control/outbox.h"

void session_hold(struct session *session, uint64_t usec)
{
    if (usec == 0)
        return;
    session->hold.until = turn_now(session->event) + usec;
    if (session->hold.timer) /* it waits already */
        timer_set(session->hold.timer, usec);
}

void session_drop_holds(struct session *session)
{
    session->hold.timer = sd_event_source_disable_unref(session->hold.timer);
    session->hold.cancel_timer = sd_event_source_disable_unref(session->hold.cancel_timer);
}

static int on_hold_end(sd_event_source *source, uint64_t usec, void *userdata)
{
    session_end_if_complete(userdata);
    return 0;
}

/* All is carried, but the owner is about to say more: see outcome.h. The end is looked at again after that.
 */
static bool is_held(struct session *session)
{
    uint64_t now = turn_now(session->event);

    if (session->outcome.is.outcome == VF_OUTCOME_MOVED || now >= session->hold.until)
        return false;
    return timer_arm_once(session->event, &session->hold.timer, session->hold.until - now, on_hold_end,
                          session) >= 0;
}

static int on_cancel_end(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct session *session = userdata;

    channels_look_again(session->channels);
    return 0;
}

bool session_awaits_cancel(void *userdata)
{
    struct session *session = userdata;
    uint64_t now = turn_now(session->event);

    /* Not for longer, whatever is reported meanwhile: a post-copy that is paused needs another tunnel. */
    if (session->hold.cancel_until == 0)
        session->hold.cancel_until = session->hold.until;
    if (now >= session->hold.cancel_until)
        return false;
    return timer_arm_once(session->event, &session->hold.cancel_timer, session->hold.cancel_until - now,
                          on_cancel_end, session) >= 0;
}

void session_end_if_complete(void *userdata)
{
    struct session *session = userdata;
    struct frame close = {.type = FRAME_CLOSE, .channel = FRAME_CHANNEL_ALL};

    if (session->role != ROLE_OUTGOING || session->connection != CONNECTION_UP ||
        session->said_close == session->connections || !channels_are_complete(session->channels))
        return;
    /* This side's ledger is proved, but the peer has yet to hear of it: its CLOSE of each comes back here. */
    if (channels_is_any_living(session->channels) || is_held(session))
        return;
    session->said_close = session->connections;
    control_send(session->control, &close);
}
