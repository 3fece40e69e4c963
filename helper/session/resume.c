/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/session/resume.h"

#include <stdarg.h>
#include <stdio.h>
#include <syslog.h>

#include "helper/session/end.h"
#include "helper/session/redial.h"

/* As if the first control connection had never been: its proof is whole at this side before it is at the
 * peer. */
static void begin_again(struct session *session)
{
    peers_drop(session->peers);
    requests_drop_peers(session->requests);
    control_clear(session->control);
    session->connections = 0;
    session->outcome.said = 0; /* on a connection whose number the next one gets */
    session_set_connection(session, CONNECTION_AWAITED);
    /* The ticket's secret was used up by the proof that was lost. */
    peers_serve_key(session->peers, PEER_CONTROL);
    if (!session_dial_first_again(session))
        session_end(session, VF_ERROR_INTERRUPTED, false, "%s", session->why);
}

static int on_recovery_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct session *session = userdata;

    session_end(session, VF_ERROR_INTERRUPTED, false, "%s It was not recovered within a day.", session->why);
    return 0;
}

/* The network does not come back in time. What is proved is done; what is not, its QEMUs have to learn. */
static void give_channels_up(struct session *session)
{
    if (channels_are_complete(session->channels)) {
        session_end_done(session);
        return;
    }
    channels_give_up(session->channels);
    session_set_recovery(session, RECOVERY_NONE); /* with its timer, whatever it was */
    session_set_recovery(session, RECOVERY_AWAITS_QEMU);
    /* No new channel can come where there is nothing to recover, or no broker to bring one. */
    if (!channels_has_any_been(session->channels) || session->link->fd < 0 ||
        sd_event_add_time_relative(session->event, &session->recovery.timer, CLOCK_MONOTONIC, RECOVERY, 0,
                                   on_recovery_timeout, session) < 0)
        session_end(session, VF_ERROR_INTERRUPTED, false, "%s", session->why);
}

static int on_network_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct session *session = userdata;

    link_log(session->link, LOG_WARNING,
             "The network did not come back in time: QEMU's connections are given up.");
    give_channels_up(session);
    return 0;
}

/* One loss after the other shares one time-out, or a network that comes and goes would keep QEMU's
 * connections for ever. */
static void await_network(struct session *session)
{
    if (session->recovery.timeout > 0 && session->recovery.stage != RECOVERY_NONE)
        return;
    if (session->recovery.timeout > 0)
        session_set_recovery(session, RECOVERY_AWAITS_NETWORK);
    if (session->recovery.timeout == 0 ||
        sd_event_add_time_relative(session->event, &session->recovery.timer, CLOCK_MONOTONIC,
                                   session->recovery.timeout, 0, on_network_timeout, session) < 0)
        give_channels_up(session);
}

/*
 * The order: an ABORT that had reached this side before the loss is the truth, and is looked for first,
 * before the connection's bytes are gone. The recovery timer is set before the source dials: a dial may fail
 * at once and end the session, which await_network() does not look at.
 *
 *     source                                          destination
 *     loss: BROKEN, DOWN, INTERRUPTED                 loss: the same, perhaps much later
 *     NEED_PEER(RESUME) to the broker
 *     preamble RESUME, proof by the resume key  --->  proved: a connection still UP is taken for lost now
 *     HELLO  ----------------------------------------->
 *     <----------------------------------------  HELLO       (both: new channel key, connection n + 1)
 *     OPEN of each channel that lives  -------------->
 *     per channel: preamble, proof, channel hello --->
 *     <------------------------------------------  channel hello with `received`
 *     both rewind to what the other has received, and go on from there
 */
void session_clean_up(struct session *session)
{
    struct frame word;

    if (session_is_over(session) || session->connection != CONNECTION_BROKEN)
        return;
    session->cleanup = sd_event_source_disable_unref(session->cleanup);
    if (control_last_word(session->control, &word)) {
        session_end(session, word.refusal.error, false, "%s", word.refusal.text);
        return;
    }
    if (session->state == STATE_WAITING) {
        begin_again(session);
        return;
    }
    channels_disconnect(session->channels);
    peers_drop(session->peers);
    peers_drop_key(session->peers, PEER_CHANNEL);
    requests_drop_peers(session->requests);
    control_clear(session->control);
    session_set_connection(session, CONNECTION_DOWN);
    session_set_state(session, STATE_INTERRUPTED);
    await_network(session);
    session_redial_after_loss(session);
}

static int on_clean_up(sd_event_source *source, void *userdata)
{
    session_clean_up(userdata);
    return 0;
}

void session_interrupt(struct session *session, const char *format, ...)
{
    bool greeted = session->connection == CONNECTION_UP;
    va_list args;

    /* BROKEN now, or the caller would read and send on; the rest later, or the caller's carrier would be
     * freed under it. */
    if (session->halted || !session_set_connection(session, CONNECTION_BROKEN))
        return;
    if (session->ending.stage != ENDING_FAREWELL) { /* else the peer has yet to hear why that is */
        va_start(args, format);
        vsnprintf(session->why, sizeof(session->why), format, args);
        va_end(args);
    }
    if (greeted)
        session_redial_at_once(session);
    if (sd_event_add_defer(session->event, &session->cleanup, on_clean_up, session) < 0)
        session_end(session, VF_ERROR_INTERRUPTED, false, "%s", session->why);
}

#define BEFORE_IT_BEGAN "The connection to the peer was lost (%s) before the migration could begin."

void session_on_lost(void *userdata, const char *why)
{
    struct session *session = userdata;

    /* All that the peer could still have said is known: both ledgers were proved channel by channel. */
    if (channels_are_complete(session->channels) && session->recovery.timeout == 0)
        session_end_done(session);
    else if (session->state == STATE_WAITING && session->role == ROLE_OUTGOING && !session->brought)
        session_interrupt(session, BEFORE_IT_BEGAN, why);
    else if (session->state == STATE_WAITING)
        session_end(session, VF_ERROR_INTERRUPTED, false, BEFORE_IT_BEGAN, why);
    else
        session_interrupt(session, "The connection to the peer was lost (%s).", why);
}
