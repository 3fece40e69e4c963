/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/channel/break-off.h"

#include <inttypes.h>
#include <syslog.h>

#include "common/cleanup.h"
#include "common/clock.h"

#include "helper/channel/table.h"
#include "helper/limits.h"

/*
 * Bytes; more is no mark of an end. This is a packet of multifd without a page, which QEMU 7.2 may send after
 * the last one that its destination waits for (with pages of 4 KiB; where they are larger it is shorter).
 */
#define REST_MAX 1344

/* The main connection of its stream was before it, and has ended well. */
static bool main_has_ended(const struct channel *channel)
{
    const struct channels *channels = channel->channels;

    return channels->main_ended && channel->stream == channels->main_stream &&
           channels->first_ended < channel->number && !(channels->lost_streams & 1U << channel->stream);
}

/* That, or there is one. */
static bool is_led(const struct channel *channel)
{
    const struct channels *channels = channel->channels;

    if (main_has_ended(channel))
        return true;
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++) {
        const struct channel *other = &channels->all[i];

        if (other->stage == CHANNEL_OPEN && other->stream == channel->stream &&
            other->number < channel->number && !other->broken_off)
            return true;
    }
    return false;
}

/* Destination: from now on what the peer sends for this channel is taken and dropped, so that its source can
 * end it. Whether the drop is harmless is judged later, by channels_judge(): now it is not known how much is
 * to come. False: it is an ordinary loss. */
bool channel_break_off(struct channel *channel)
{
    struct channels *channels = channel->channels;

    if (channels->options.role != ROLE_INCOMING || channel->broken_off || !is_led(channel) ||
        !relay_break_off(&channel->relay))
        return false;
    channel->broken_off = true;
    link_log(channels->options.link, LOG_NOTICE,
             "QEMU closed its connection on the stream '%s' (channel %" PRIu32
             ") early; its main one goes on.",
             channels->options.streams->names[channel->stream], channel->number);
    relay_move(&channel->relay, turn_now(channels->options.event), FLOW_TURN);
    return relay_lost(&channel->relay) == RELAY_NOTHING_LOST;
}

bool channel_is_short(const struct channel *channel)
{
    return channel->broken_off && relay_dropped(&channel->relay) > (channel->spared ? REST_MAX : 0);
}

/* There is one that is carried to its end, after which it is judged again. */
static bool is_any_whole(const struct channels *channels)
{
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++) {
        const struct channel *channel = &channels->all[i];

        if (!channel_lives(channel))
            continue;
        _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);
        if (!channel_is_short(channel))
            return true;
    }
    return false;
}

static void fail(struct channel *channel)
{
    struct channels *channels = channel->channels;

    channels_fail(channels, VF_ERROR_SOCKET_UNAVAILABLE,
                  "QEMU closed its connection on the stream '%s' (channel %" PRIu32
                  ") before it had taken the last %" PRIu64
                  " bytes that were sent to it. The log of that QEMU says why.",
                  channels->options.streams->names[channel->stream], channel->number,
                  relay_dropped(&channel->relay));
}

static void spare(struct channel *channel)
{
    struct channels *channels = channel->channels;

    channel->spared = true;
    link_log(
        channels->options.link, LOG_NOTICE,
        "QEMU did not take the last %" PRIu64 " bytes of its connection on the stream '%s' (channel %" PRIu32
        "), and ended its main one well.",
        relay_dropped(&channel->relay), channels->options.streams->names[channel->stream], channel->number);
}

/*
 * Short channels lacked something at the end. More than REST_MAX fails at once. Less fails or is spared only
 * when no whole channel lives any more: until then the main connection may still end well, which is what
 * excuses it.
 */
bool channels_judge(struct channels *channels)
{
    bool wait = is_any_whole(channels), spared = false;

    for (size_t i = 0; i < STATS_CHANNELS_MAX && !channels_halted(channels); i++) {
        struct channel *channel = &channels->all[i];

        if (!channel_lives(channel))
            continue;
        _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);
        if (!channel_is_short(channel) || (wait && relay_dropped(&channel->relay) <= REST_MAX))
            continue;
        if (relay_dropped(&channel->relay) > REST_MAX || !relay_has_delivered(&channel->relay) ||
            !main_has_ended(channel)) {
            fail(channel);
            return false;
        }
        spare(channel);
        spared = true;
    }
    return spared;
}
