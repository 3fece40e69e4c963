/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "session.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <syslog.h>
#include <unistd.h>

#include "common/cleanup.h"

struct channel *channel_find(struct session *session, uint32_t number)
{
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++) {
        struct channel *channel = &session->channels[i];

        if ((channel->stage == CHANNEL_OPENING || channel->stage == CHANNEL_OPEN) &&
            channel->number == number)
            return channel;
    }
    return NULL;
}

/* The slot's entry of the stats page: what a poll of Channels reads. */
static void publish(struct channel *channel, enum stats_channel_state state)
{
    struct session *session = channel->session;
    size_t slot = (size_t)(channel - session->channels);
    struct stats_channel *stats = &session->stats->channels[slot];
    uint64_t sent = channel->out.ring.end, received = channel->in.ring.begin;

    if (state != STATS_CHANNEL_CLOSED && state != STATS_CHANNEL_LOST) {
        STATS_ADD(session->stats->sent, sent - channel->sent);
        STATS_ADD(session->stats->received, received - channel->received);
        channel->sent = sent;
        __atomic_store_n(&channel->received, received, __ATOMIC_SEQ_CST);
    }
    STATS_WRITE(stats->number, channel->number);
    STATS_WRITE(stats->stream, (uint16_t)channel->stream);
    STATS_WRITE(stats->sent, channel->sent);
    STATS_WRITE(stats->received, channel->received);
    STATS_WRITE(stats->state, (uint16_t)state);
    if (STATS_READ(session->stats->n_channels) <= slot)
        STATS_WRITE(session->stats->n_channels, (uint32_t)slot + 1);
}

/* The way back carries requests, not memory. */
static size_t window_of(const struct session *session)
{
    return session->role == ROLE_INCOMING && session->window > FLOW_WINDOW_BACK ? FLOW_WINDOW_BACK
                                                                                : session->window;
}

struct channel *channel_new(struct session *session, uint32_t number, uint32_t stream)
{
    struct channel *channel = NULL;

    if (session->n_living >= session->max_channels)
        return NULL;
    /* A slot that was never used before one whose numbers somebody may still want to read. */
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++) {
        struct channel *slot = &session->channels[i];

        if (!channel_lives(slot) &&
            (!channel || (channel->stage == CHANNEL_CLOSED && slot->stage == CHANNEL_UNUSED)))
            channel = slot;
    }
    if (!channel)
        return NULL;
    *channel =
        (struct channel){.session = session, .stage = CHANNEL_OPENING, .number = number, .stream = stream};
    if (flow_init(&channel->out, FLOW_OUT, &session->pool, window_of(session)) < 0 ||
        flow_init(&channel->in, FLOW_IN, &session->pool, FLOW_BUFFER) < 0) {
        flow_clear(&channel->out);
        channel->stage = CHANNEL_UNUSED;
        return NULL;
    }
    session->n_living++;
    channel->known = session->role == ROLE_INCOMING;
    channel->out.pacer = &session->pacer;
    channel->out.forgetful = session->resume_timeout == 0;
    publish(channel, STATS_CHANNEL_OPENING);
    return channel;
}

void channel_close(struct channel *channel)
{
    _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);
    bool ended = channel->close_sent && channel->close_received;

    if (!channel_lives(channel))
        return;
    publish(channel, STATS_CHANNEL_OPEN); /* the last numbers, before the rings go */
    channel->stage = CHANNEL_CLOSED;
    channel->session->n_living--;
    publish(channel, ended ? STATS_CHANNEL_CLOSED : STATS_CHANNEL_LOST);
    channel->grace = sd_event_source_disable_unref(channel->grace);
    channel->qemu = carrier_free(channel->qemu);
    channel->carrier = carrier_free(channel->carrier);
    flow_clear(&channel->out);
    flow_clear(&channel->in);
    channel_take_back(channel);
}

/* The peer may have taken bytes for it of which nothing is known here: so it counts wherever the peer may
 * know of it. */
void channel_give_up(struct channel *channel)
{
    if (channel_lives(channel) && channel->known)
        channel->session->lost_streams |= 1U << channel->stream;
    channel_close(channel);
}

void channel_quit(struct channel *channel)
{
    _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);

    if (!channel_lives(channel))
        return;
    publish(channel, STATS_CHANNEL_OPEN);
    publish(channel, STATS_CHANNEL_LOST);
    channel->qemu = carrier_free(channel->qemu);
    channel->out.from = channel->in.to = NULL;
    if (channel->carrier)
        carrier_watch(channel->carrier, 0);
    channel_take_back(channel);
}

static void on_channel_ready(struct carrier *carrier, uint32_t revents, void *userdata)
{
    (void)carrier;
    (void)revents;
    channel_update(userdata);
}

static void channel_failed(struct channel *channel, int r)
{
    session_end(channel->session, VF_ERROR_HELPER_FAILED, true,
                "Channel %" PRIu32 " could not be set up: %s.", channel->number, strerror(-r));
}

void channel_set_qemu(struct channel *channel, int fd, bool shared)
{
    _cleanup_fd_ int owned = fd;
    int r;

    channel->dial = DIAL_DONE;
    r = carrier_plain_new(fd, false, NULL, NULL, &channel->qemu);
    if (r >= 0) {
        owned = -1;
        channel->qemu->shared = shared;
        r = channel_attach(channel, channel->qemu, on_channel_ready);
    }
    if (r < 0) {
        channel_failed(channel, r);
        return;
    }
    if (channel->carrier)
        channel->out.from = channel->qemu; /* else: nothing is taken that the peer may refuse */
    channel->in.to = channel->qemu;
    if (channel->session->role == ROLE_INCOMING) {
        struct frame opened = {.type = FRAME_OPENED, .channel = channel->number};

        control_send(channel->session, &opened);
    } else if (channel->session->control.greeted) {
        channel_announce(channel);
    }
    if (!session_halted(channel->session))
        channel_update(channel);
    if (!session_halted(channel->session) && channel->session->role == ROLE_INCOMING)
        channel_dial(channel->session, channel->stream);
}

/* Without the lock: nobody waits for a worker to say what it has done already. */
static uint64_t delivered(const struct channel *channel)
{
    return __atomic_load_n(&channel->received, __ATOMIC_SEQ_CST);
}

static void send_ack(struct channel *channel)
{
    struct frame ack = {.type = FRAME_ACK, .channel = channel->number};

    if (!channel->session->control.greeted)
        return;
    ack.offset = delivered(channel);
    __atomic_store_n(&channel->in.told, ack.offset, __ATOMIC_SEQ_CST);
    control_send(channel->session, &ack);
}

static int on_grace(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct channel *channel = userdata;

    (void)source;
    (void)usec;
    channel->graced = true;
    channel_dial(channel->session, channel->stream);
    return 0;
}

void channel_set_carrier(struct channel *channel, struct carrier *carrier)
{
    _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);
    struct session *session = channel->session;
    int r;

    channel->carrier = carrier;
    channel->stale = false;
    r = channel_attach(channel, carrier, on_channel_ready);
    if (r >= 0 && session->role == ROLE_INCOMING && !channel->graced && !channel->grace)
        r = sd_event_add_time_relative(session->event, &channel->grace, CLOCK_MONOTONIC, SESSION_GRACE, 1000,
                                       on_grace, channel);
    if (r < 0) {
        channel_failed(channel, r);
        return;
    }
    channel->out.from = channel->qemu;
    channel->out.to = carrier;
    channel->in.from = carrier;
    if (channel->stage == CHANNEL_OPEN)
        session_set_state(session, STATE_ACTIVE);
    if (channel->in.ring.begin != 0)
        send_ack(channel); /* the last one may have been lost */
    channel_update(channel);
}

void channel_ack(struct channel *channel)
{
    if (channel->in.told != delivered(channel))
        send_ack(channel);
}

void channel_ack_in_time(struct channel *channel)
{
    uint64_t owed = delivered(channel) - channel->in.told;

    if (!channel_lives(channel) || !channel->session->control.greeted)
        return;
    if (owed >= FLOW_ACK_STEP)
        send_ack(channel);
    else if (owed > 0)
        control_ack_later(channel->session);
}

static bool lost_at_qemu(const struct channel *channel)
{
    return (channel->failed->kind == FLOW_OUT) == (channel->verdict == FLOW_FROM_LOST);
}

/* What a broken connection means for the migration. */
static void channel_lost(struct channel *channel)
{
    const char *stream = channel->session->streams[channel->stream];

    if (channel->verdict == FLOW_NO_MEMORY)
        session_end(channel->session, VF_ERROR_HELPER_FAILED, true, "There is no memory for the stream '%s'.",
                    stream);
    else if (lost_at_qemu(channel))
        session_end(channel->session, VF_ERROR_SOCKET_UNAVAILABLE, true,
                    "QEMU closed its connection on the stream '%s' (channel %" PRIu32
                    ") before it had taken all "
                    "that was sent to it. Its log says why.",
                    stream, channel->number);
    else
        session_interrupt(channel->session,
                          "The peer connection of the stream '%s' (channel %" PRIu32
                          ") was lost after %" PRIu64 " bytes out and %" PRIu64 " in.",
                          stream, channel->number, channel->out.ring.cursor, channel->in.ring.end);
}

static void channel_watch(struct channel *channel);

/* The last acknowledgement counts, even if its worker has not heard of it yet. */
static bool all_is_acknowledged(const struct channel *channel)
{
    const struct flow *out = &channel->out;

    return flow_ended(out) ||
           (out->ending && out->ring.cursor == out->total && channel->ack == out->total && !channel->lie);
}

bool channel_ended(const struct channel *channel)
{
    _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);

    return flow_ended(&channel->in) && all_is_acknowledged(channel);
}

bool channel_has_carried(const struct channel *channel)
{
    return channel->out.total + channel->in.total > 0;
}

void channel_detach(struct channel *channel)
{
    _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);

    channel->carrier = carrier_free(channel->carrier);
    channel->out.to = channel->in.from = NULL;
    channel->announced = channel->close_sent = false;
    channel->close_again = channel->close_received;
    channel->open_again = true;
    if (channel->verdict != FLOW_OK && channel->verdict != FLOW_NO_MEMORY && !lost_at_qemu(channel))
        channel->verdict = FLOW_OK;
    flow_resume(&channel->in, 0);
    channel_watch(channel);
}

/* Says what the ledger has come to. */
static void channel_tell(struct channel *channel)
{
    struct session *session = channel->session;
    struct flow *out = &channel->out, *in = &channel->in;

    if (!session->control.greeted)
        return; /* all is said again when there is a control connection */
    if (out->ending && !out->fin_sent && ring_unsent(&out->ring) == 0 && channel->carrier) {
        struct frame fin = {.type = FRAME_FIN, .channel = channel->number, .offset = out->total};

        out->fin_sent = true;
        control_send(session, &fin);
        if (session_halted(session))
            return;
    }
    if (flow_ended(in))
        channel_ack(channel);
    else
        channel_ack_in_time(channel);
    /* After a loss not before the connection is back: FIN and the last ACK, which make it true, come then. */
    if (channel_ended(channel) && !channel->close_sent && (channel->carrier || channel->close_received) &&
        !session_halted(session)) {
        struct frame close = {.type = FRAME_CLOSE, .channel = channel->number};

        channel->close_sent = true;
        control_send(session, &close);
    }
}

bool channel_has_news(const struct channel *channel)
{
    const struct flow *out = &channel->out, *in = &channel->in;

    return channel->verdict != FLOW_OK || channel->lie || channel->paced || flow_ended(in) ||
           flow_ended(out) || (out->ending && !out->fin_sent && ring_unsent(&out->ring) == 0);
}

bool channel_owes_ack(const struct channel *channel)
{
    uint64_t owed = channel->received - __atomic_load_n(&channel->in.told, __ATOMIC_SEQ_CST);

    return owed >= FLOW_ACK_STEP ||
           (owed > 0 && !__atomic_load_n(&channel->session->acks_later, __ATOMIC_SEQ_CST));
}

static void channel_watch(struct channel *channel)
{
    bool moves = channel->verdict == FLOW_OK;
    uint32_t qemu = 0, peer = 0;

    /* Looked at once: another thread may fill the bucket at any time. */
    channel->paced = moves && flow_is_paced(&channel->out);
    if (moves && !channel->paced && flow_could_read(&channel->out))
        qemu |= EPOLLIN;
    if (moves && flow_wants_output(&channel->out))
        peer |= EPOLLOUT;
    if (moves && flow_wants_input(&channel->in))
        peer |= EPOLLIN;
    if (moves && flow_wants_output(&channel->in))
        qemu |= EPOLLOUT;
    if (channel->qemu)
        carrier_watch(channel->qemu, qemu);
    if (channel->carrier)
        carrier_watch(channel->carrier, peer);
}

/* The source ends the migration when nothing is left of it. */
void channel_end_if_complete(struct session *session)
{
    struct frame close = {.type = FRAME_CLOSE, .channel = FRAME_CHANNEL_ALL};

    if (session->role != ROLE_OUTGOING || session->control.close_sent || !session_complete(session))
        return;
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++)
        if (channel_lives(&session->channels[i]))
            return; /* this side's ledger is proved, but the peer has yet to hear of it: its CLOSE comes back
                       here */
    session->control.close_sent = session->done_said = true;
    control_send(session, &close);
}

void channel_move(struct channel *channel, uint64_t now, size_t budget)
{
    struct flow *flows[] = {&channel->in, &channel->out}; /* in first: page requests and answers to them */

    for (size_t i = 0; i < 2 && channel->verdict == FLOW_OK; i++) {
        channel->failed = flows[i];
        channel->verdict = flow_pump(flows[i], now, budget);
    }
    publish(channel, channel->stage == CHANNEL_OPEN ? STATS_CHANNEL_OPEN : STATS_CHANNEL_OPENING);
    channel_watch(channel);
}

static void channel_opened(struct channel *channel)
{
    struct session *session = channel->session;

    channel->stage = CHANNEL_OPEN;
    publish(channel, STATS_CHANNEL_OPEN);
    session_set_state(session, STATE_ACTIVE);
    if (session->given_up)
        session->resume_timer = sd_event_source_disable_unref(session->resume_timer);
    session->given_up = false;
}

static void channel_ended_well(struct channel *channel)
{
    struct session *session = channel->session;

    if (channel_has_carried(channel)) {
        session->main_closed = session->main_closed || channel->stream == session->main_stream;
        if (!channel->stale)
            session->lost_streams &= ~(1U << channel->stream);
    }
    channel_close(channel);
    channel_end_if_complete(session);
}

static void share(struct channel *channel)
{
    int r = channel_share(channel, on_channel_ready);

    if (r < 0) {
        channel_failed(channel, r);
        return;
    }
    _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);
    channel_watch(channel);
}

void channel_settle(struct channel *channel)
{
    struct session *session = channel->session;

    bool opened = false;

    if (!session || session_halted(session) || !channel_lives(channel))
        return;
    _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);
    if (channel->verdict != FLOW_OK) {
        channel_lost(channel);
        return;
    }
    if (channel->lie) {
        control_lie(session, channel->number, channel->lie);
        return;
    }
    if (channel->stage == CHANNEL_OPENING && channel->qemu && channel->carrier) {
        channel_opened(channel);
        opened = true;
    }
    channel_tell(channel);
    if (session_halted(session))
        return;
    if (channel->close_sent && channel->close_received) {
        channel_ended_well(channel);
        return;
    }
    if (channel->stage == CHANNEL_OPENING && session->role == ROLE_INCOMING)
        channel_dial(session, channel->stream);
    channel_watch(channel);
    if (channel->paced)
        channel_pace(session);
    if (opened)
        share(channel);
}

void channel_update(struct channel *channel)
{
    struct session *session = channel->session;
    _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);

    if (session_halted(session) || !channel_lives(channel))
        return;
    if (channel->verdict == FLOW_OK)
        channel_move(channel, session_now(session), session->n_living > 1 ? FLOW_TURN : FLOW_BUDGET);
    channel_settle(channel);
}

void channel_update_all(struct session *session)
{
    for (size_t i = 0; i < STATS_CHANNELS_MAX && !session_halted(session); i++)
        if (channel_lives(&session->channels[i]))
            channel_update(&session->channels[i]);
}
