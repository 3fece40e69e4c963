/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/channel/frames.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "common/cleanup.h"
#include "helper/channel/channel.h"
#include "helper/channel/internal.h"
#include "helper/channel/opening.h"
#include "helper/channel/table.h"
#include "helper/control/outbox.h"

static void refuse_for_limit(struct channels *channels, uint32_t number)
{
    struct frame frame = {.type = FRAME_REFUSED, .channel = number};

    frame.refusal.error = VF_ERROR_LIMIT_EXCEEDED;
    snprintf(frame.refusal.text, sizeof(frame.refusal.text),
             "The destination allows %" PRIu32 " channels at once.", channels->options.max_channels);
    control_send(channels->options.control, &frame);
}

/* The source asks for a channel again that is no more here: says whether it had ended well. One that never
 * was here was refused for the limit; that is sure only while all that were are remembered, which they are as
 * long as there is a slot that was never used. */
static void say_of_ended(struct channels *channels, uint32_t number)
{
    struct frame frame = {.type = FRAME_REFUSED, .channel = number};
    bool was_here = false, all_remembered = false;

    frame.refusal.error = VF_ERROR_INTERRUPTED;
    strcpy(frame.refusal.text, "The destination has given this channel up.");
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++) {
        const struct channel *channel = &channels->all[i];

        all_remembered = all_remembered || channel->stage == CHANNEL_UNUSED;
        if (channel->stage == CHANNEL_UNUSED || channel->number != number)
            continue;
        was_here = true;
        if (channel->stage == CHANNEL_PROVED)
            frame.type = FRAME_CLOSE;
    }
    if (all_remembered && !was_here)
        refuse_for_limit(channels, number);
    else
        control_send(channels->options.control, &frame);
}

/* Destination. Numbers are the source's and count up from 0. */
static void on_open(struct channels *channels, const struct frame *frame)
{
    const struct stream_names *theirs = channels->options.peer_streams;
    struct channel *channel = channel_find(channels, frame->channel);
    int stream = -1;

    if (frame->stream < theirs->n)
        stream = stream_names_find(channels->options.streams, theirs->names[frame->stream]);
    if (stream >= 0 && channel && channel->stream == (uint32_t)stream &&
        !channel_is_said(channel, channel->heard_open)) {
        channel->heard_open = channels->connection;
        channel_update(channel);
        return;
    }
    if (stream >= 0 && !channel && frame->channel < channels->next && channels->again) {
        say_of_ended(channels, frame->channel);
        return;
    }
    if (stream < 0 || frame->channel < channels->next) {
        channels_fail(channels, VF_ERROR_PROTOCOL_MISMATCH,
                      "The peer opened channel %" PRIu32 " on stream %" PRIu32 ", which cannot be. " ADVICE,
                      frame->channel, frame->stream);
        return;
    }
    /* Before the slot is looked for: a refused number is used up as well, and its next OPEN is an old
     * channel's.
     */
    channels->next = frame->channel + 1; /* what lies between was lost with its connection */
    channel = channel_new(channels, frame->channel, (uint32_t)stream);
    if (channel)
        channel->heard_open = channels->connection;
    else
        refuse_for_limit(channels, frame->channel);
}

/* It may just have closed here, or been refused; only one that never was cannot be. */
static const char *on_unknown(struct channels *channels, const struct frame *frame)
{
    if (frame->channel < channels->next)
        return NULL;
    if (frame->type != FRAME_REFUSED || !channels->again || channels->options.role != ROLE_INCOMING)
        return "a frame for a channel that never was";
    channels->next = frame->channel + 1; /* given up before its OPEN came through */
    return NULL;
}

/* With the relay's lock held. */
static const char *on_refused(struct channel *channel, const struct frame *frame)
{
    struct channels *channels = channel->channels;
    const bool moved = relay_has_moved(&channel->relay); /* read before the rings go */

    if (relay_peer(&channel->relay))
        return "a refusal of a channel that is open";
    link_log(channels->options.link, LOG_WARNING, "The peer refused channel %" PRIu32 ": %s", channel->number,
             frame->refusal.text);
    /* Refused before a byte moved, nothing is missing at the peer; what has moved is a loss, for which QEMU
     * has to make another channel. Any other reason ends the migration. */
    if (frame->refusal.error == VF_ERROR_LIMIT_EXCEEDED && !moved) {
        channel_close(channel);
    } else if (frame->refusal.error == VF_ERROR_LIMIT_EXCEEDED ||
               frame->refusal.error == VF_ERROR_INTERRUPTED) {
        channel_give_up(channel);
        channels->gave_up = channels->connection;
    } else {
        channels->events->refused(channels->userdata, frame->refusal.error, frame->refusal.text);
        return NULL;
    }
    if (channels->options.role == ROLE_INCOMING)
        channels_dial_stream(channels, channel->stream); /* the next one's turn */
    if (!channels_halted(channels))
        channels->events->ended(channels->userdata);
    return NULL;
}

/* CLOSE says that the peer's ledger is complete, which it can be only if this side's is: the peer has heard
 * this side's FIN and last ACK. Before that it is a lie, and bytes would be lost unnoticed. */
static const char *on_close(struct channel *channel)
{
    if (channel_is_said(channel, channel->heard_close) || !relay_ended(&channel->relay))
        return "a CLOSE of a channel that has not ended";
    channel->heard_close = channel->channels->connection;
    return NULL;
}

/* With the relay's lock held. */
static const char *on_ledger(struct channel *channel, const struct frame *frame)
{
    switch (frame->type) {
    case FRAME_ACK:
        return relay_on_ack(&channel->relay, frame->offset);
    case FRAME_FIN:
        return relay_on_fin(&channel->relay, frame->offset, channel->channels->connection);
    case FRAME_CLOSE:
        return on_close(channel);
    default:
        return NULL; /* OPENED is for a person with a trace; the flows do not wait for it */
    }
}

const char *channels_on_frame(struct channels *channels, const struct frame *frame)
{
    struct channel *channel;
    const char *why;

    if (frame->type == FRAME_OPEN) {
        on_open(channels, frame);
        return NULL;
    }
    channel = channel_find(channels, frame->channel);
    if (!channel)
        return on_unknown(channels, frame);
    /* The only frequent frame: it must not wait for a worker that encrypts, so it goes by another way. */
    if (frame->type == FRAME_ACK && crew_has(channels->crew, channel_slot(channel)))
        return crew_on_ack(channels->crew, channel_slot(channel), frame->offset);
    _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);
    crew_take_ack(channels->crew, channel_slot(channel)); /* what was said before this frame */
    if (frame->type == FRAME_REFUSED)
        return on_refused(channel, frame);
    why = on_ledger(channel, frame);
    if (!why)
        channel_update(channel);
    return why;
}
