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

/* The source asks for a channel again that is no more here: says whether it had ended well. */
static void say_of_ended(struct channels *channels, uint32_t number)
{
    struct frame frame = {.type = FRAME_REFUSED, .channel = number};

    frame.refusal.error = VF_ERROR_INTERRUPTED;
    strcpy(frame.refusal.text, "The destination has given this channel up.");
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++)
        if (channels->all[i].stage == CHANNEL_PROVED && channels->all[i].number == number)
            frame.type = FRAME_CLOSE;
    control_send(channels->options.control, &frame);
}

static void refuse(struct channels *channels, uint32_t number)
{
    struct frame frame = {.type = FRAME_REFUSED, .channel = number};

    frame.refusal.error = VF_ERROR_LIMIT_EXCEEDED;
    snprintf(frame.refusal.text, sizeof(frame.refusal.text),
             "The destination allows %" PRIu32 " channels at once.", channels->options.max_channels);
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
    channels->next = frame->channel + 1; /* what lies between was lost with its connection */
    channel = channel_new(channels, frame->channel, (uint32_t)stream);
    if (channel)
        channel->heard_open = channels->connection;
    else
        refuse(channels, frame->channel);
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

static const char *on_refused(struct channel *channel, const struct frame *frame)
{
    struct channels *channels = channel->channels;

    if (relay_peer(&channel->relay))
        return "a refusal of a channel that is open";
    link_log(channels->options.link, LOG_WARNING, "The peer refused channel %" PRIu32 ": %s", channel->number,
             frame->refusal.text);
    if (frame->refusal.error != VF_ERROR_LIMIT_EXCEEDED && frame->refusal.error != VF_ERROR_INTERRUPTED) {
        channels->events->refused(channels->userdata, frame->refusal.error, frame->refusal.text);
        return NULL;
    }
    channel_close(channel);
    if (channels->options.role == ROLE_INCOMING)
        channels_dial_stream(channels, channel->stream); /* the next one's turn */
    return NULL;
}

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
