/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/session/redial.h"

#include "common/clock.h"
#include "helper/session/end.h"

static void dial_again(struct session *session)
{
    bool asked;

    if (session_is_over(session) || control_fd(session->control) >= 0 || session->role != ROLE_OUTGOING)
        return;
    /* An older request may still be answered; its serial is unknown then, and the connection is closed. */
    requests_drop_peers(session->requests);
    requests_ask_peer(session->requests, PEER_RESUME, 0, &asked);
    if (!asked)
        session_end(session, VF_ERROR_INTERRUPTED, false, "%s The broker is gone, too.", session->why);
}

static int on_redial(sd_event_source *source, uint64_t usec, void *userdata)
{
    dial_again(userdata);
    return 0;
}

void session_redial(struct session *session)
{
    /* ± 25 %: the migrations of a host lose their network together, and should not all dial together. */
    uint64_t wait = session->redial.wait, jitter = turn_now(session->event) % 1000 * wait / 2000;

    if (session_is_over(session) || session->role != ROLE_OUTGOING)
        return;
    requests_drop_peers(session->requests);
    session->redial.wait = wait * 2 < REDIAL_MAX ? wait * 2 : REDIAL_MAX;
    session->redial.timer = sd_event_source_disable_unref(session->redial.timer);
    if (sd_event_add_time_relative(session->event, &session->redial.timer, CLOCK_MONOTONIC,
                                   wait * 3 / 4 + jitter, 0, on_redial, session) < 0)
        session_end(session, VF_ERROR_INTERRUPTED, false, "%s", session->why);
}

static int on_dial_time(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct session *session = userdata;
    bool asked;

    if (session_is_over(session))
        return 0;
    requests_ask_peer(session->requests, PEER_CONTROL, 0, &asked);
    if (!asked)
        session_end(session, VF_ERROR_HELPER_FAILED, true, "The broker is gone.");
    return 0;
}

bool session_dial_first_again(struct session *session)
{
    uint64_t wait = (uint64_t)DIAL_AGAIN << session->redial.n_first;

    if (session->redial.n_first + 1 >= DIALS_MAX)
        return false;
    session->redial.n_first++;
    session->redial.timer = sd_event_source_disable_unref(session->redial.timer);
    return sd_event_add_time_relative(session->event, &session->redial.timer, CLOCK_MONOTONIC, wait, 1000,
                                      on_dial_time, session) >= 0;
}

bool session_has_dialled_again(const struct session *session)
{
    return session->redial.n_first > 0;
}

void session_redial_at_once(struct session *session)
{
    session->redial.wait = 0;
}

void session_redial_after_loss(struct session *session)
{
    if (session->redial.wait > 0) {
        session_redial(session);
        return;
    }
    session->redial.wait = REDIAL_FIRST;
    dial_again(session);
}

bool session_is_rejected(struct session *session)
{
    return ++session->redial.n_rejections >= REJECTIONS_MAX;
}

void session_not_rejected(struct session *session)
{
    session->redial.n_rejections = 0;
}
