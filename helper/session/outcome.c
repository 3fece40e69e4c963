/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/session/outcome.h"

#include <string.h>

#include "helper/control/outbox.h"
#include "helper/session/complete.h"
#include "helper/session/end.h"

/* Destination: once each, and only to a broker that takes it. */
static void tell_broker(struct session *session)
{
    union message m = {.peer_outcome.outcome = session->outcome.is};

    if (session->role != ROLE_INCOMING || session->outcome.broker != LISTENER_WAITS ||
        session->outcome.is.outcome == VF_OUTCOME_NONE)
        return;
    link_send(session->link, MESSAGE_PEER_OUTCOME, &m, -1);
    session->outcome.broker = LISTENER_TOLD;
}

void session_meet_broker(struct session *session)
{
    if (session->outcome.broker == LISTENER_NONE)
        session->outcome.broker = LISTENER_WAITS;
    tell_broker(session);
}

void session_forget_broker(struct session *session)
{
    session->outcome.broker = LISTENER_NONE;
}

void session_tell_outcome(struct session *session)
{
    struct frame frame = {.type = FRAME_OUTCOME, .outcome = session->outcome.is};

    if (session->role != ROLE_OUTGOING || session->connection != CONNECTION_UP ||
        !(session->peer_features & FEATURE_OUTCOME) || session->outcome.is.outcome == VF_OUTCOME_NONE ||
        session->outcome.said == session->connections)
        return;
    session->outcome.said = session->connections;
    control_send(session->control, &frame);
}

void session_take_outcome(struct session *session, const struct outcome *outcome)
{
    if (session->role != ROLE_OUTGOING || !message_outcome_ok(outcome) ||
        memcmp(&session->outcome.is, outcome, sizeof(*outcome)) == 0)
        return;
    session->outcome.is = *outcome;
    session->outcome.said = 0;
    session_tell_outcome(session);
    if (!session_is_over(session))
        session_end_if_complete(session);
}

void session_hear_outcome(struct session *session, const struct outcome *outcome)
{
    if (memcmp(&session->outcome.is, outcome, sizeof(*outcome)) == 0)
        return; /* once more, over a new connection */
    if (session->outcome.n_heard++ == OUTCOMES_MAX) {
        session_end_violated(session, 0, "one OUTCOME after the other");
        return;
    }
    session->outcome.is = *outcome;
    if (session->outcome.broker == LISTENER_TOLD)
        session->outcome.broker = LISTENER_WAITS;
    tell_broker(session);
}
