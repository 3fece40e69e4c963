/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/session/frames.h"

#include <string.h>

#include "helper/channel/frames.h"
#include "helper/control/heartbeat.h"
#include "helper/control/outbox.h"
#include "helper/session/complete.h"
#include "helper/session/end.h"
#include "helper/session/outcome.h"
#include "helper/session/redial.h"
#include "helper/session/resume.h"
#include "helper/session/tick.h"

static void send_hello(struct session *session)
{
    struct frame frame = {.type = FRAME_HELLO};

    frame.hello.version = PROTOCOL_VERSION;
    frame.hello.features = FEATURE_OUTCOME;
    if (session->role == ROLE_OUTGOING || (session->features & OFFER_MARKS)) /* else its gate refuses them */
        frame.hello.features |= FEATURE_MARKS;
    frame.hello.max_channels = session->max_channels;
    frame.hello.n_streams = session->streams.n;
    memcpy(frame.hello.streams, session->streams.names, sizeof(frame.hello.streams));
    control_send(session->control, &frame);
}

/* What follows is bound to this connection's session. The key for resuming is derived once: of a connection
 * that is lost neither side knows whether the other had adopted it, too. 0 or a negative errno. */
static int make_keys(struct session *session)
{
    uint8_t exported[KEY_SIZE], key[KEY_SIZE];
    int r = control_export_key(session->control, exported);

    if (r >= 0)
        r = key_derive(exported, session->id, "vmferry channel v1", key);
    if (r >= 0)
        r = peers_set_key(session->peers, PEER_CHANNEL, key);
    if (r >= 0 && session->connections == 1) {
        r = key_derive(exported, session->id, "vmferry resume v1", key);
        if (r >= 0)
            r = peers_set_key(session->peers, PEER_RESUME, key);
    }
    explicit_bzero(exported, sizeof(exported));
    explicit_bzero(key, sizeof(key));
    return r;
}

/* Whether the peer's HELLO suits this side; else the migration has ended. */
static bool take_hello(struct session *session, const struct frame *frame)
{
    if (frame->hello.version != PROTOCOL_VERSION) {
        session_end(session, VF_ERROR_PROTOCOL_MISMATCH, true,
                    "The peer speaks version %u of the protocol, this side version %d. "
                    "Upgrade the older vmferry.",
                    frame->hello.version, PROTOCOL_VERSION);
        return false;
    }
    if (session->role == ROLE_OUTGOING) {
        channels_limit_number(session->channels, frame->hello.max_channels); /* the lower limit is both's */
        return true;
    }
    for (uint32_t i = 0; i < frame->hello.n_streams; i++)
        if (stream_names_find(&session->streams, frame->hello.streams[i]) < 0) {
            session_end(session, VF_ERROR_NO_SUCH_STREAM, true,
                        "The source wants to send the stream '%s', which the destination did not prepare. "
                        "Give both the same 'streams'.",
                        frame->hello.streams[i]);
            return false;
        }
    session->peer_streams.n = frame->hello.n_streams;
    memcpy(session->peer_streams.names, frame->hello.streams, sizeof(session->peer_streams.names));
    channels_set_main_stream(session->channels,
                             (uint32_t)stream_names_find(&session->streams, frame->hello.streams[0]));
    return true;
}

/* The source makes marks where the destination reads them. */
static bool marks_are_used(const struct session *session, const struct frame *frame)
{
    return (frame->hello.features & FEATURE_MARKS) &&
           (session->role == ROLE_OUTGOING || (session->features & OFFER_MARKS));
}

static void on_hello(struct session *session, const struct frame *frame)
{
    int r;

    if (!take_hello(session, frame))
        return;
    /*
     * UP first, since frames are sent only then. The outcome goes before a farewell, which ends the session.
     * The destination sends its HELLO after its keys are there: the source dials channels as soon as it has
     * that. CONNECTED is told before the channels speak, since ACTIVE cannot go before it.
     */
    session->peer_features = frame->hello.features;
    session_set_connection(session, CONNECTION_UP);
    peers_set_marks(session->peers, marks_are_used(session, frame));
    session_tell_outcome(session);
    if (session->ending.stage == ENDING_FAREWELL) {
        session_end(session, session->ending.farewell, true, "%s", session->why);
        return;
    }
    r = make_keys(session);
    if (r < 0) {
        session_end(session, VF_ERROR_HELPER_FAILED, true, "The control connection could not be set up: %s.",
                    strerror(-r));
        return;
    }
    if (session->role == ROLE_INCOMING)
        send_hello(session);
    if (session->halted)
        return;
    session_not_rejected(session);
    if (session->recovery.stage == RECOVERY_AWAITS_NETWORK)
        session_set_recovery(session, RECOVERY_NONE);
    if (session->state == STATE_WAITING ||
        (session->state == STATE_INTERRUPTED && !channels_has_any_been(session->channels)))
        session_set_state(session, STATE_CONNECTED);
    channels_connect(session->channels, session->connections);
    session_end_if_complete(session);
}

/* The source sends it first, the destination answers, and both are done. If the answer is lost, the source
 * dials again and is rejected by a peer that has gone: resume_failed() takes that for the answer. */
static void on_close_all(struct session *session, const struct frame *frame)
{
    struct frame reply = {.type = FRAME_CLOSE, .channel = FRAME_CHANNEL_ALL};

    if (!channels_are_complete(session->channels)) {
        session_end_violated(session, frame->channel, "a CLOSE of a migration that has not ended");
        return;
    }
    if (session->said_close != session->connections) {
        session->said_close = session->connections;
        control_send(session->control, &reply);
    }
    session_end_done(session);
}

static void on_channel_frame(struct session *session, const struct frame *frame)
{
    const char *why = channels_on_frame(session->channels, frame);

    if (why)
        session_end_violated(session, frame->channel, why);
    else if (frame->type == FRAME_OPEN && !session->halted)
        peers_unpark(session->peers, frame->channel); /* its peer connection may have overtaken it */
}

static void on_pong(struct session *session, const struct frame *frame)
{
    uint64_t trip = heartbeat_on_pong(session->control, frame->cookie);

    if (trip > 0)
        STATS_WRITE(session->counters.page->round_trip_usec, trip);
    else
        session_end_violated(session, frame->channel, "a PONG that answers no PING");
}

void session_on_frame(void *userdata, const struct frame *frame)
{
    struct session *session = userdata;
    enum message_role from = session->role == ROLE_INCOMING ? ROLE_OUTGOING : ROLE_INCOMING;
    const char *why = frame_not_permitted(frame->type, from, session->connection == CONNECTION_UP);

    if (why) {
        session_end_violated(session, frame->channel, why);
        return;
    }
    switch (frame->type) {
    case FRAME_HELLO:
        on_hello(session, frame);
        break;
    case FRAME_PING:
        heartbeat_on_ping(session->control, frame->cookie);
        session_tick_by_ping(session);
        break;
    case FRAME_PONG:
        on_pong(session, frame);
        break;
    case FRAME_OUTCOME:
        session_hear_outcome(session, &frame->outcome);
        break;
    case FRAME_ABORT:
        /* The peer has taken this side's last connection for the first, before that was lost. */
        if (session->state == STATE_WAITING && session_has_dialled_again(session) &&
            session->why[0] != '\0' && frame->refusal.error == VF_ERROR_TICKET_USED)
            session_end(session, VF_ERROR_INTERRUPTED, false, "%s", session->why);
        else
            session_end(session, frame->refusal.error, false, "%s", frame->refusal.text);
        break;
    default:
        if (frame->type == FRAME_CLOSE && frame->channel == FRAME_CHANNEL_ALL)
            on_close_all(session, frame);
        else
            on_channel_frame(session, frame);
        break;
    }
}

void session_on_proved(void *userdata, enum peer_kind kind, struct carrier *carrier)
{
    struct session *session = userdata;
    struct stats *page = session->counters.page;
    int r;

    /* The source, which alone holds that key, has lost what this side may still take for alive. */
    /* At once, not deferred: the caller is a peer connection, which uses neither channels nor control. */
    if (control_fd(session->control) >= 0) {
        session_interrupt(session, "The peer has lost the connection and made a new one.");
        session_clean_up(session);
    }
    if (session_is_over(session)) {
        carrier_free(carrier);
        return;
    }
    session->brought = carrier->shared;
    r = control_adopt(session->control, carrier);
    if (r < 0) {
        session_end(session, VF_ERROR_HELPER_FAILED, true, "The control connection could not be set up: %s.",
                    strerror(-r));
        return;
    }
    peers_use_key(session->peers, PEER_CONTROL); /* from now on the ticket's secret serves no connection */
    session_set_connection(session, CONNECTION_GREETING);
    if (session->connections++ > 0)
        STATS_WRITE(page->reconnects, STATS_READ(page->reconnects) + 1);
    if (session->role == ROLE_OUTGOING)
        send_hello(session);
    if (!session->halted)
        control_read(session->control); /* HELLO may have come with the proof: no poll tells of it */
}
