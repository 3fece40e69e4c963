/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/channel/channel.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "helper/carrier/raw.h"
#include "helper/channel/acks.h"
#include "helper/channel/break-off.h"
#include "helper/channel/opening.h"
#include "helper/channel/table.h"
#include "helper/control/outbox.h"

/* Only while the first thread owns the channel: a worker polls in its own epoll set, see crew.c. */
static void on_ready(struct carrier *carrier, uint32_t revents, void *userdata)
{
    channel_update(userdata);
}

/* Lets the channel's owner (a worker or the first thread) poll this connection of it. */
static int attach(struct channel *channel, struct carrier *carrier)
{
    struct channels *channels = channel->channels;

    if (crew_has(channels->crew, channel_slot(channel)))
        return crew_attach(channels->crew, channel_slot(channel), carrier);
    return carrier_attach(carrier, channels->options.event, on_ready, channel);
}

static void set_up_failed(struct channel *channel, int r)
{
    channels_fail(channel->channels, VF_ERROR_HELPER_FAILED, "Channel %" PRIu32 " could not be set up: %s.",
                  channel->number, strerror(-r));
}

void channel_set_qemu(struct channel *channel, int fd, bool shared)
{
    struct channels *channels = channel->channels;
    struct frame opened = {.type = FRAME_OPENED, .channel = channel->number};
    _cleanup_fd_ int owned = fd;
    struct carrier *qemu;
    int r = carrier_raw_new(fd, &qemu);

    if (r >= 0) {
        owned = -1;
        carrier_set_shared(qemu, shared);
        relay_set_qemu(&channel->relay, qemu);
        r = attach(channel, qemu);
    }
    if (r < 0) {
        set_up_failed(channel, r);
        return;
    }
    if (channels->options.role == ROLE_OUTGOING)
        channel_announce(channel);
    else if (channels->connection != 0) /* nothing is said before HELLO */
        control_send(channels->options.control, &opened);
    channel_update(channel);
    if (!channels_halted(channels) && channels->options.role == ROLE_INCOMING)
        channels_dial_stream(channels, channel->stream);
}

void channel_set_peer(struct channel *channel, struct carrier *carrier)
{
    struct channels *channels = channel->channels;
    _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);
    int r;

    relay_set_peer(&channel->relay, carrier, channels->connection);
    /* From relay_set_peer() on the relay owns the carrier: a failure below ends the migration, and the
     * carrier goes with its channel. */
    r = attach(channel, carrier);
    if (r >= 0)
        r = channel_begin_grace(channel);
    if (r < 0) {
        set_up_failed(channel, r);
        return;
    }
    if (channel->stage == CHANNEL_OPEN)
        channels->events->active(channels->userdata);
    /* The last ACK may have been lost with the old connection. Without it the source's ring stays full, and
     * no byte would come that calls for another ACK. */
    if (relay_delivered(&channel->relay) != 0)
        channel_ack(channel);
    channel_update(channel);
}

/* What a broken connection means for the migration. */
static void on_lost(struct channel *channel, enum relay_loss loss)
{
    struct channels *channels = channel->channels;
    const char *stream = channels->options.streams->names[channel->stream];
    char text[MESSAGE_TEXT_MAX];

    if (loss == RELAY_NO_MEMORY) {
        channels_fail(channels, VF_ERROR_HELPER_FAILED, "There is no memory for the stream '%s'.", stream);
    } else if (loss == RELAY_QEMU_LOST) {
        channels_fail(channels, VF_ERROR_SOCKET_UNAVAILABLE,
                      "QEMU closed its connection on the stream '%s' (channel %" PRIu32
                      ") before it had taken all that was sent to it. The log of that QEMU says why.",
                      stream, channel->number);
    } else {
        snprintf(text, sizeof(text),
                 "The peer connection of the stream '%s' (channel %" PRIu32 ") was lost after %" PRIu64
                 " bytes out and %" PRIu64 " in.",
                 stream, channel->number, relay_sent(&channel->relay), relay_received(&channel->relay));
        channels->events->lost(channels->userdata, text);
    }
}

/*
 * Says what the ledger has come to: FIN, then ACK, then CLOSE. The peer takes CLOSE only of a channel that
 * has ended in its own ledger (on_close() in frames.c), which these FIN and ACK bring about. Each
 * control_send() may find the connection lost, so that the rest must not be said: hence the looks at
 * channels_halted().
 */
static void tell(struct channel *channel)
{
    struct channels *channels = channel->channels;
    uint64_t total;

    if (channels->connection == 0)
        return; /* all is said again when there is a control connection */
    if (relay_tell_end(&channel->relay, &total)) {
        struct frame fin = {.type = FRAME_FIN, .channel = channel->number, .offset = total};

        control_send(channels->options.control, &fin);
        if (channels_halted(channels))
            return;
    }
    if (relay_in_ended(&channel->relay))
        channel_ack_owed(channel);
    else
        channel_ack_in_time(channel);
    /* After a loss not before the connection is back: FIN and the last ACK, which make it true, come then. */
    if (relay_ended(&channel->relay) && !channel_is_short(channel) &&
        !channel_is_said(channel, channel->said_close) &&
        (relay_peer(&channel->relay) || channel->heard_close != 0) && !channels_halted(channels)) {
        struct frame close = {.type = FRAME_CLOSE, .channel = channel->number};

        channel->said_close = channels->connection;
        control_send(channels->options.control, &close);
    }
}

static void set_open(struct channel *channel)
{
    struct channels *channels = channel->channels;

    channel_set_stage(channel, CHANNEL_OPEN);
    relay_set_state(&channel->relay, STATS_CHANNEL_OPEN);
    channels->events->active(channels->userdata);
}

/*
 * Lends the channel to a worker, unless the first thread has no other open one. A migration's first channel
 * stays with the first thread: a migration of one channel then runs without hand-overs between threads. Where
 * a worker cannot take it, the first thread polls both connections again, which crew_give() may have moved.
 */
static void lend(struct channel *channel)
{
    struct channels *channels = channel->channels;
    bool alone = true;
    int r;

    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++)
        alone = alone && (&channels->all[i] == channel || channels->all[i].stage != CHANNEL_OPEN ||
                          crew_has(channels->crew, i));
    if (alone || crew_give(channels->crew, channel_slot(channel)) >= 0)
        return;
    r = attach(channel, relay_qemu(&channel->relay));
    if (r >= 0)
        r = attach(channel, relay_peer(&channel->relay));
    if (r < 0)
        set_up_failed(channel, r);
    else
        relay_watch(&channel->relay);
}

/* A channel that is spared counts as carried from now on, and may be the one that the end waited for: so each
 * of them is settled again. */
static void judge(struct channels *channels)
{
    if (!channels_judge(channels))
        return;
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++)
        if (channels->all[i].spared)
            channel_settle(&channels->all[i]);
}

/* Notes that a channel of the main stream has ended well. One that carried nothing does not count: something
 * only looked whether this side listens. */
static void count(struct channel *channel)
{
    struct channels *channels = channel->channels;

    if (!relay_has_carried(&channel->relay) || channel->stream != channels->main_stream)
        return;
    if (!channels->main_ended || channel->number < channels->first_ended)
        channels->first_ended = channel->number;
    channels->main_ended = true;
}

/*
 * The network is gone for good, and this channel was not closed by both sides. Usually that is a loss. One
 * case is not: a destination that has said CLOSE has proved both flows, so its QEMU has all.
 *
 *     the source has heard that CLOSE: it waits for no replacement, and its QEMU will make none
 *     the source has not heard it:     the source waits for a replacement before it closes the whole
 *
 * Either way the destination may count the channel as ended well. It replaces none of the channels that are
 * given up beside it, since it is as old as they are: lost_streams stays as it is.
 */
void channel_abandon(struct channel *channel)
{
    if (!channel_lives(channel) || channel->channels->options.role == ROLE_OUTGOING ||
        channel->said_close == 0) {
        channel_give_up(channel);
        return;
    }
    count(channel);
    channel_close(channel);
}

/* Both sides have said CLOSE. The ledger is read before channel_close() frees the relay's rings; the session
 * is told last, for it may end the migration. */
static void end(struct channel *channel)
{
    struct channels *channels = channel->channels;

    count(channel);
    if (relay_has_carried(&channel->relay) && channel_replaces(channel))
        channels->lost_streams &= ~(1U << channel->stream);
    channel_close(channel);
    judge(channels);
    if (!channels_halted(channels))
        channels->events->ended(channels->userdata);
}

/*
 * The order matters. A loss or a lie comes first: nothing that would be said after it is true. A channel
 * opens before anything is told of it, since the state ACTIVE goes before what the ledger has come to. CLOSE
 * is the last word, so that the slot can be freed only after tell(). What is left waits; and only what waits
 * may go to a worker, which from then on may have it locked.
 */
void channel_settle(struct channel *channel)
{
    struct channels *channels = channel->channels;
    bool opened = false;

    if (!channel_lives(channel) || channels_halted(channels))
        return;
    _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);
    /* QEMU may close early on purpose: its main connection goes on (channel_break_off()), or the source's
     * owner is about to cancel, so that the loss need not become the error (events->awaits_cancel()). */
    if (relay_lost(&channel->relay) != RELAY_NOTHING_LOST &&
        !(relay_lost(&channel->relay) == RELAY_QEMU_LOST && channel_break_off(channel))) {
        if (relay_lost(&channel->relay) != RELAY_QEMU_LOST ||
            !channels->events->awaits_cancel(channels->userdata))
            on_lost(channel, relay_lost(&channel->relay));
        return;
    }
    if (channel_is_short(channel))
        judge(channels);
    /* judge() may have ended the migration; or, through channel_settle() of this very channel, the channel.
     */
    if (channels_halted(channels) || !channel_lives(channel))
        return;
    if (relay_violation(&channel->relay)) {
        channels->events->violated(channels->userdata, channel->number, relay_violation(&channel->relay));
        return;
    }
    if (channel->stage == CHANNEL_OPENING && relay_qemu(&channel->relay) && relay_peer(&channel->relay)) {
        set_open(channel);
        opened = true;
    }
    tell(channel);
    if (channels_halted(channels))
        return;
    if (channel_is_said(channel, channel->said_close) && channel->heard_close != 0) {
        end(channel);
        return;
    }
    if (channel->stage == CHANNEL_OPENING && channels->options.role == ROLE_INCOMING)
        channels_dial_stream(channels, channel->stream);
    relay_watch(&channel->relay);
    if (relay_is_paced(&channel->relay))
        pace_wait(&channels->pace);
    if (opened)
        lend(channel);
}

/* Moves bytes, then settles what follows from that. The lock is recursive: channel_settle() takes it again.
 * What is lost moves no more bytes, or relay_move() would replace the verdict that is to be told. */
void channel_update(struct channel *channel)
{
    struct channels *channels = channel->channels;

    if (!channel_lives(channel) || channels_halted(channels))
        return;
    _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);
    if (relay_lost(&channel->relay) == RELAY_NOTHING_LOST)
        relay_move(&channel->relay, turn_now(channels->options.event),
                   channels->n_living > 1 ? FLOW_TURN : FLOW_BUDGET);
    channel_settle(channel);
}
