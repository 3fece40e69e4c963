/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "session.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <syslog.h>

#include "common/cleanup.h"

enum {
    CORK_MAX = 16 * 1024, /* bytes that wait for more to go with them */
};

void control_clear(struct session *session)
{
    struct control *control = &session->control;

    control->carrier = carrier_free(control->carrier);
    ring_clear(&control->in);
    ring_clear(&control->out);
    control->greeted = false;
}

static void control_watch(struct control *control)
{
    uint32_t events = EPOLLIN;

    if (ring_unsent(&control->out) > 0 || control->carrier->ops->holds_output(control->carrier))
        events |= EPOLLOUT;
    carrier_watch(control->carrier, events);
}

static void control_lost(struct session *session, const char *why)
{
    /* All that the peer could still have said is known: both ledgers were proved channel by channel. */
    if (session_complete(session) && session->resume_timeout == 0)
        session_end(session, VF_ERROR_NONE, false, "%s", "");
    else if (session->state == STATE_WAITING)
        session_end(session, VF_ERROR_INTERRUPTED, false,
                    "The connection to the peer was lost (%s) before the migration could begin.", why);
    else
        session_interrupt(session, "The connection to the peer was lost (%s).", why);
}

static void control_flush(struct session *session)
{
    struct control *control = &session->control;
    ssize_t n;

    do {
        n = carrier_send(control->carrier, &control->out);
        ring_release(&control->out, control->out.cursor);
    } while (n > 0 && ring_unsent(&control->out) > 0);
    if (n < 0 && n != -EAGAIN)
        control_lost(session, strerror((int)-n));
    else
        control_watch(control);
}

void control_send(struct session *session, const struct frame *frame)
{
    struct control *control = &session->control;
    uint8_t buf[FRAME_MAX];

    if (!control->carrier || session_halted(session))
        return;
    if (ring_append(&control->out, buf, frame_encode(frame, buf)) < 0) {
        session_interrupt(session, "The peer does not read its control connection any more.");
        return;
    }
    if (!control->corked || ring_unsent(&control->out) >= CORK_MAX)
        control_flush(session);
}

static void uncork(struct session *session)
{
    struct control *control = &session->control;

    control->corked = false;
    if (control->carrier && !session_halted(session))
        control_flush(session);
}

static void send_hello(struct session *session)
{
    struct frame frame = {.type = FRAME_HELLO};

    frame.hello.version = PROTOCOL_VERSION;
    frame.hello.max_channels = session->max_channels;
    frame.hello.n_streams = session->n_streams;
    memcpy(frame.hello.streams, session->streams, sizeof(session->streams));
    control_send(session, &frame);
}

/* The index of a stream of ours, or −1. */
static int stream_find(const struct session *session, const char *name)
{
    for (uint32_t i = 0; i < session->n_streams; i++)
        if (strcmp(session->streams[i], name) == 0)
            return (int)i;
    return -1;
}

static void on_hello(struct session *session, const struct frame *frame)
{
    struct control *control = &session->control;

    if (frame->hello.version != PROTOCOL_VERSION) {
        session_end(session, VF_ERROR_PROTOCOL_MISMATCH, true,
                    "The peer speaks version %u of the protocol, this side version %d. "
                    "Upgrade the older vmferry.",
                    frame->hello.version, PROTOCOL_VERSION);
        return;
    }
    if (session->role == ROLE_INCOMING) {
        for (uint32_t i = 0; i < frame->hello.n_streams; i++)
            if (stream_find(session, frame->hello.streams[i]) < 0) {
                session_end(
                    session, VF_ERROR_NO_SUCH_STREAM, true,
                    "The source wants to send the stream '%s', which the destination did not prepare. "
                    "Give both the same 'streams'.",
                    frame->hello.streams[i]);
                return;
            }
        session->main_stream = (uint32_t)stream_find(session, frame->hello.streams[0]);
        control->n_streams = frame->hello.n_streams;
        memcpy(control->streams, frame->hello.streams, sizeof(control->streams));
    } else if (frame->hello.max_channels < session->max_channels) {
        session->max_channels = frame->hello.max_channels; /* the lower limit is that of both */
    }
    control->greeted = true;
    if (session->farewell != VF_ERROR_NONE) {
        session_end(session, session->farewell, true, "%s", session->why);
        return;
    }
    if (session->role == ROLE_INCOMING)
        send_hello(session);
    if (session_halted(session))
        return;
    session->n_rejections = 0;
    if (!session->given_up)
        session->resume_timer = sd_event_source_disable_unref(session->resume_timer);
    if (session->state == STATE_WAITING ||
        (session->state == STATE_INTERRUPTED && session->next_channel == 0))
        session_set_state(session, STATE_CONNECTED);
    if (session->role == ROLE_OUTGOING) {
        channel_announce_all(session);
        channel_end_if_complete(session);
    }
}

static void refuse_for_limit(struct session *session, uint32_t number)
{
    struct frame frame = {.type = FRAME_REFUSED, .channel = number};

    frame.refusal.error = VF_ERROR_LIMIT_EXCEEDED;
    snprintf(frame.refusal.text, sizeof(frame.refusal.text),
             "The destination allows %" PRIu32 " channels at once.", session->max_channels);
    control_send(session, &frame);
}

/* The source asks for a channel again that is no more here: says whether it had ended well. One that never
 * was here was refused for the limit, as far as all that were are remembered: while there is a slot that was
 * never used. */
static void say_of_ended(struct session *session, uint32_t number)
{
    struct frame frame = {.type = FRAME_REFUSED, .channel = number};
    bool was_here = false, all_known = false;

    frame.refusal.error = VF_ERROR_INTERRUPTED;
    strcpy(frame.refusal.text, "The destination has given this channel up.");
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++) {
        const struct channel *channel = &session->channels[i];

        all_known = all_known || channel->stage == CHANNEL_UNUSED;
        if (channel->stage != CHANNEL_CLOSED || channel->number != number)
            continue;
        was_here = true;
        if (channel->close_sent && channel->close_received)
            frame.type = FRAME_CLOSE;
    }
    if (all_known && !was_here)
        refuse_for_limit(session, number);
    else
        control_send(session, &frame);
}

/* Answers OPEN; numbers are the source's and count up from 0. */
static void on_open(struct session *session, const struct frame *frame)
{
    struct channel *channel;
    int stream = -1;

    if (frame->stream < session->control.n_streams)
        stream = stream_find(session, session->control.streams[frame->stream]);
    channel = channel_find(session, frame->channel);
    if (stream >= 0 && channel && channel->stream == (uint32_t)stream && channel->open_again) {
        channel->open_again = false;
        if (!channel->carrier) /* else it has overtaken this */
            peer_unpark(session, channel);
        channel_update(channel);
        return;
    }
    if (stream >= 0 && !channel && frame->channel < session->next_channel && session->adopted_again) {
        say_of_ended(session, frame->channel);
        return;
    }
    if (stream < 0 || frame->channel < session->next_channel) {
        session_end(session, VF_ERROR_PROTOCOL_MISMATCH, true,
                    "The peer opened channel %" PRIu32 " on stream %" PRIu32 ", which cannot be. " ADVICE,
                    frame->channel, frame->stream);
        return;
    }
    session->next_channel = frame->channel + 1; /* what lies between was lost with its connection */
    channel = channel_new(session, frame->channel, (uint32_t)stream);
    if (!channel) {
        refuse_for_limit(session, frame->channel);
        return;
    }
    peer_unpark(session, channel);
}

void control_lie(struct session *session, uint32_t channel, const char *what)
{
    session_end(session, VF_ERROR_PROTOCOL_MISMATCH, true, "The peer sent %s (channel %" PRIu32 "). " ADVICE,
                what, channel);
}

static void lie(struct session *session, const struct frame *frame, const char *what)
{
    control_lie(session, frame->channel, what);
}

static void on_close_all(struct session *session, const struct frame *frame)
{
    struct frame reply = {.type = FRAME_CLOSE, .channel = FRAME_CHANNEL_ALL};

    if (!session_complete(session)) {
        lie(session, frame, "a CLOSE of a migration that has not ended");
        return;
    }
    if (!session->control.close_sent) {
        session->control.close_sent = true;
        control_send(session, &reply);
    }
    session_end(session, VF_ERROR_NONE, false, "%s", "");
}

/* With Interrupted the peer has given up all channels that it had; those that it opens or answers for from
 * here on are new to it. */
static void peer_gave_up(struct session *session, struct channel *channel)
{
    channel_give_up(channel);
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++)
        if (channel_lives(&session->channels[i]) && !session->channels[i].carrier)
            session->channels[i].stale = true;
}

static void on_refused(struct session *session, struct channel *channel, const struct frame *frame)
{
    const bool carried = channel->out.ring.end + channel->in.ring.end > 0;

    if (channel->carrier) {
        lie(session, frame, "a refusal of a channel that is open");
        return;
    }
    link_log(session->link, LOG_WARNING, "The peer refused channel %" PRIu32 ": %s", channel->number,
             frame->refusal.text);
    if (frame->refusal.error == VF_ERROR_LIMIT_EXCEEDED && !carried) {
        channel_close(channel);
    } else if (frame->refusal.error == VF_ERROR_LIMIT_EXCEEDED ||
               frame->refusal.error == VF_ERROR_INTERRUPTED) {
        peer_gave_up(session, channel);
    } else {
        session_end(session, frame->refusal.error, false, "%s", frame->refusal.text);
        return;
    }
    if (session->role == ROLE_INCOMING)
        channel_dial(session, channel->stream); /* the next one's turn */
    channel_end_if_complete(session);
}

static void on_channel_frame(struct session *session, const struct frame *frame)
{
    struct channel *channel = channel_find(session, frame->channel);
    const char *why = NULL;

    if (!channel) {
        /* It may just have closed here, or been refused; only one that never was is a lie. */
        if (frame->channel >= session->next_channel && frame->type == FRAME_REFUSED &&
            session->adopted_again && session->role == ROLE_INCOMING)
            session->next_channel = frame->channel + 1; /* given up before its OPEN came through */
        else if (frame->channel >= session->next_channel)
            lie(session, frame, "a frame for a channel that never was");
        return;
    }
    if (frame->type == FRAME_ACK && channel_has_worker(channel)) {
        channel_on_ack(channel, frame->offset);
        return;
    }
    _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);
    channel_take_ack(channel); /* what was said before this frame */
    switch (frame->type) {
    case FRAME_OPENED:
        break; /* for a person with a trace; the flows do not wait for it */
    case FRAME_REFUSED:
        on_refused(session, channel, frame);
        return;
    case FRAME_ACK:
        why = flow_on_ack(&channel->out, frame->offset);
        break;
    case FRAME_FIN:
        why = flow_on_fin(&channel->in, frame->offset);
        break;
    case FRAME_CLOSE:
        if ((channel->close_received && !channel->close_again) || !channel_ended(channel))
            why = "a CLOSE of a channel that has not ended";
        channel->close_received = true;
        channel->close_again = false;
        break;
    default:
        break;
    }
    if (why)
        lie(session, frame, why);
    else
        channel_update(channel);
}

static void on_frame(struct session *session, const struct frame *frame)
{
    enum message_role from = session->role == ROLE_INCOMING ? ROLE_OUTGOING : ROLE_INCOMING;
    const char *why = frame_not_permitted(frame->type, from, session->control.greeted);

    if (why) {
        lie(session, frame, why);
        return;
    }
    switch (frame->type) {
    case FRAME_HELLO:
        on_hello(session, frame);
        break;
    case FRAME_OPEN:
        on_open(session, frame);
        break;
    case FRAME_PING:
        heartbeat_on_ping(session, frame->cookie);
        break;
    case FRAME_PONG:
        if (!heartbeat_on_pong(session, frame->cookie))
            lie(session, frame, "a PONG that answers no PING");
        break;
    case FRAME_ABORT:
        session_end(session, frame->refusal.error, false, "%s", frame->refusal.text);
        break;
    case FRAME_CLOSE:
        if (frame->channel == FRAME_CHANNEL_ALL)
            on_close_all(session, frame);
        else
            on_channel_frame(session, frame);
        break;
    default:
        on_channel_frame(session, frame);
        break;
    }
}

/* All whole frames that are there. */
static void parse_frames(struct session *session)
{
    struct ring *in = &session->control.in;

    while (!session_halted(session)) {
        uint8_t buf[FRAME_MAX];
        struct frame frame;
        const char *why;
        size_t used, n = ring_copy(in, buf, sizeof(buf));
        enum verdict verdict = frame_decode(buf, n, &frame, &used, &why);

        if (verdict == VERDICT_MORE)
            return;
        if (verdict != VERDICT_OK) {
            session_end(session, VF_ERROR_PROTOCOL_MISMATCH, true, "The peer sent %s. " ADVICE, why);
            return;
        }
        ring_advance(in, used);
        ring_release(in, in->cursor);
        on_frame(session, &frame);
    }
}

static void on_control_ready(struct carrier *carrier, uint32_t revents, void *userdata)
{
    struct session *session = userdata;
    struct control *control = &session->control;
    ssize_t n;

    (void)revents;
    if (session->over) {
        control_linger(session);
        return;
    }
    control->corked = true; /* one answer to all that is there */
    do {
        n = carrier_recv(carrier, &control->in, ring_room(&control->in));
        if (n > 0) {
            control->silence = 0;
            parse_frames(session);
        }
    } while (n > 0 && !session_halted(session) && carrier->ops->holds_input(carrier));
    uncork(session);
    if (!session_halted(session) && (n == 0 || (n < 0 && n != -EAGAIN)))
        control_lost(session, n == 0 ? "the peer closed it" : strerror((int)-n));
}

void control_adopt(struct session *session, struct carrier *carrier)
{
    struct control *control = &session->control;
    uint8_t exported[KEY_SIZE];
    int r;

    *control = (struct control){.carrier = carrier};
    r = carrier_attach(carrier, session->event, on_control_ready, session);
    if (r >= 0)
        r = ring_init(&control->in, &session->pool, SESSION_CONTROL_RING);
    if (r >= 0)
        r = ring_init(&control->out, &session->pool, SESSION_CONTROL_RING);
    /* From now on the ticket's secret serves nobody: what follows is bound to this connection's session. */
    if (r >= 0)
        r = carrier->ops->export_key(carrier, exported);
    if (r >= 0)
        r = key_derive(exported, session->id, "vmferry channel v1", session->channel_key);
    /* Once: of a connection that is lost nobody knows whether the other side had adopted it, too. */
    if (r >= 0 && !session->adopted)
        r = key_derive(exported, session->id, "vmferry resume v1", session->resume_key);
    explicit_bzero(exported, sizeof(exported));
    if (r < 0) {
        session_end(session, VF_ERROR_HELPER_FAILED, true, "The control connection could not be set up: %s.",
                    strerror(-r));
        return;
    }
    if (session->adopted)
        STATS_WRITE(session->stats->reconnects, STATS_READ(session->stats->reconnects) + 1);
    session->adopted_again = session->adopted;
    session->adopted = true;
    if (session->role == ROLE_OUTGOING)
        send_hello(session);
    if (!session_halted(session))
        on_control_ready(carrier, 0, session); /* no poll sees what came with the handshake's last bytes */
}

static int on_ack_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct session *session = userdata;

    (void)source;
    (void)usec;
    __atomic_store_n(&session->acks_later, false,
                     __ATOMIC_SEQ_CST); /* first: what is moved from here on tells */
    for (size_t i = 0; i < STATS_CHANNELS_MAX && !session_halted(session); i++)
        if (session->channels[i].stage == CHANNEL_OPEN || session->channels[i].stage == CHANNEL_OPENING)
            channel_ack(&session->channels[i]);
    return 0;
}

void control_ack_later(struct session *session)
{
    int enabled = SD_EVENT_OFF;

    if (!session->ack_timer) {
        if (sd_event_add_time_relative(session->event, &session->ack_timer, CLOCK_MONOTONIC,
                                       SESSION_ACK_DELAY, 1000, on_ack_timer, session) >= 0)
            __atomic_store_n(&session->acks_later, true, __ATOMIC_SEQ_CST);
        return;
    }
    __atomic_store_n(&session->acks_later, true, __ATOMIC_SEQ_CST);
    sd_event_source_get_enabled(session->ack_timer, &enabled);
    if (enabled == SD_EVENT_OFF) {
        sd_event_source_set_time_relative(session->ack_timer, SESSION_ACK_DELAY);
        sd_event_source_set_enabled(session->ack_timer, SD_EVENT_ONESHOT);
    }
}
