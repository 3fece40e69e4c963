/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/session/outcome.h"

#include <string.h>

#include "common/clock.h"
#include "common/timer.h"
#include "helper/control/outbox.h"
#include "helper/session/end.h"

/* Destination: once each, and only to a broker that takes it. */
static void tell_broker(struct session *session)
{
    union message m = {.peer_outcome.outcome = session->outcome};

    if (session->role != ROLE_INCOMING || !session->broker_takes_outcome || session->outcome_told)
        return;
    if (session->outcome.outcome == VF_OUTCOME_NONE)
        return;
    link_send(session->link, MESSAGE_PEER_OUTCOME, &m, -1);
    session->outcome_told = true;
}

void session_hold(struct session *session, const struct message_hold *m)
{
    session->broker_takes_outcome = true;
    tell_broker(session);
    if (m->usec == 0)
        return;
    session->held_until = turn_now(session->event) + m->usec;
    if (session->hold) /* it waits already */
        timer_set(session->hold, m->usec);
}

void session_forget_broker(struct session *session)
{
    session->broker_takes_outcome = false;
    session->outcome_told = false;
}

void session_tell_outcome(struct session *session)
{
    struct frame frame = {.type = FRAME_OUTCOME, .outcome = session->outcome};

    if (session->role != ROLE_OUTGOING || session->connection != CONNECTION_UP ||
        !(session->peer_features & FEATURE_OUTCOME) || session->outcome.outcome == VF_OUTCOME_NONE ||
        session->said_outcome == session->connections)
        return;
    session->said_outcome = session->connections;
    control_send(session->control, &frame);
}

void session_take_outcome(struct session *session, const struct outcome *outcome)
{
    if (session->role != ROLE_OUTGOING || !message_outcome_ok(outcome) ||
        memcmp(&session->outcome, outcome, sizeof(*outcome)) == 0)
        return;
    session->outcome = *outcome;
    session->said_outcome = 0;
    session_tell_outcome(session);
    if (!session_is_over(session))
        session_end_if_complete(session);
}

void session_hear_outcome(struct session *session, const struct outcome *outcome)
{
    if (memcmp(&session->outcome, outcome, sizeof(*outcome)) == 0)
        return; /* once more, over a new connection */
    if (session->n_outcomes++ == OUTCOMES_MAX) {
        session_end_violated(session, 0, "one OUTCOME after the other");
        return;
    }
    session->outcome = *outcome;
    session->outcome_told = false;
    tell_broker(session);
}
