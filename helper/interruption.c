/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "session.h"

#include <stdarg.h>
#include <stdio.h>
#include <syslog.h>

/* Asks the broker for the next control connection. */
static int on_redial(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct session *session = userdata;

    (void)source;
    (void)usec;
    if (session->over || session->control.carrier || session->role != ROLE_OUTGOING)
        return 0;
    session->resume_serial = ++session->next_serial;
    if (!sync_need_peer(session, PEER_RESUME, session->resume_serial))
        session_end(session, VF_ERROR_INTERRUPTED, false, "%s The broker is gone, too.", session->why);
    return 0;
}

void session_redial(struct session *session)
{
    uint64_t wait = session->redial, jitter = session_now(session) % 1000 * wait / 2000;

    if (session->over || session->role != ROLE_OUTGOING)
        return;
    session->resume_serial = 0;
    session->redial = wait * 2 < SESSION_REDIAL_MAX ? wait * 2 : SESSION_REDIAL_MAX;
    session->redial_timer = sd_event_source_disable_unref(session->redial_timer);
    if (sd_event_add_time_relative(session->event, &session->redial_timer, CLOCK_MONOTONIC,
                                   wait * 3 / 4 + jitter, 0, on_redial, session) < 0)
        session_end(session, VF_ERROR_INTERRUPTED, false, "%s", session->why);
}

static int on_recovery_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct session *session = userdata;

    (void)source;
    (void)usec;
    session_end(session, VF_ERROR_INTERRUPTED, false, "%s It was not recovered within a day.", session->why);
    return 0;
}

/* The network does not come back in time. What is proved is done; what is not, its QEMUs have to learn. */
static void give_channels_up(struct session *session)
{
    if (session_complete(session)) {
        session_end(session, VF_ERROR_NONE, false, "%s", "");
        return;
    }
    session->given_up = true;
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++)
        channel_give_up(&session->channels[i]);
    session->resume_timer = sd_event_source_disable_unref(session->resume_timer);
    /* Nobody can bring new channels where there is nothing to recover, or no broker to bring them. */
    if (session->next_channel == 0 || session->link->fd < 0 ||
        sd_event_add_time_relative(session->event, &session->resume_timer, CLOCK_MONOTONIC, SESSION_RECOVERY,
                                   0, on_recovery_timeout, session) < 0)
        session_end(session, VF_ERROR_INTERRUPTED, false, "%s", session->why);
}

static int on_resume_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct session *session = userdata;

    (void)source;
    (void)usec;
    link_log(session->link, LOG_WARNING,
             "The network did not come back in time: QEMU's connections are given up.");
    give_channels_up(session);
    return 0;
}

/* The peer may have noticed first: what it, or a manager, has brought to go on with is kept. */
static bool outlives_loss(const struct peer *peer)
{
    return peer->stage == PEER_GREETING || (!peer->connecting && peer->kind == PEER_RESUME);
}

void session_clean_up(struct session *session)
{
    const bool greeted = session->control.greeted;

    if (session->over || !session->broken)
        return;
    session->cleanup = sd_event_source_disable_unref(session->cleanup);
    control_last_word(session);
    if (session->over)
        return;
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++)
        if (channel_lives(&session->channels[i]))
            channel_detach(&session->channels[i]);
    for (size_t i = 0; i < SESSION_PEERS_MAX; i++)
        if (!outlives_loss(&session->peers[i]))
            peer_clear(&session->peers[i]);
    control_clear(session);
    session->broken = false;
    session_set_state(session, STATE_INTERRUPTED);
    if (session->resume_timeout == 0)
        give_channels_up(session);
    else if (!session->resume_timer &&
             sd_event_add_time_relative(session->event, &session->resume_timer, CLOCK_MONOTONIC,
                                        session->resume_timeout, 0, on_resume_timeout, session) < 0)
        give_channels_up(session);
    /* At once after a loss; a peer that hangs up on each new connection is dialled with pauses. */
    if (greeted) {
        session->redial = SESSION_REDIAL_FIRST;
        on_redial(NULL, 0, session);
    } else {
        session_redial(session);
    }
}

static int on_clean_up(sd_event_source *source, void *userdata)
{
    (void)source;
    session_clean_up(userdata);
    return 0;
}

void session_interrupt(struct session *session, const char *format, ...)
{
    va_list args;

    if (session_halted(session))
        return;
    if (session->farewell == VF_ERROR_NONE) { /* else the peer has yet to hear why that is */
        va_start(args, format);
        vsnprintf(session->why, sizeof(session->why), format, args);
        va_end(args);
    }
    session->broken = true;
    if (sd_event_add_defer(session->event, &session->cleanup, on_clean_up, session) < 0)
        session_end(session, VF_ERROR_INTERRUPTED, false, "%s", session->why);
}
