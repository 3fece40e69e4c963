/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/channel/break-off.h"

#include <inttypes.h>
#include <syslog.h>

#include "common/cleanup.h"
#include "common/clock.h"

#include "helper/channel/table.h"
#include "helper/limits.h"

#define REST_MAX 64 /* bytes; more is no mark of an end */

/* There is a main connection before it, or has been, and it ended well. */
static bool is_led(const struct channel *channel)
{
    const struct channels *channels = channel->channels;

    if (channels->main_ended && channel->stream == channels->main_stream &&
        !(channels->lost_streams & 1U << channel->stream))
        return true;
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++) {
        const struct channel *other = &channels->all[i];

        if (other->stage == CHANNEL_OPEN && other->stream == channel->stream &&
            other->number < channel->number && !other->broken_off)
            return true;
    }
    return false;
}

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
    return channel->broken_off && relay_dropped(&channel->relay) > 0;
}

void channels_judge(struct channels *channels)
{
    for (size_t i = 0; i < STATS_CHANNELS_MAX && !channels_halted(channels); i++) {
        struct channel *channel = &channels->all[i];

        if (!channel_lives(channel))
            continue;
        _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);
        if (!channel_is_short(channel) ||
            (channels->n_living > 1 && relay_dropped(&channel->relay) <= REST_MAX))
            continue;
        channels_fail(channels, VF_ERROR_SOCKET_UNAVAILABLE,
                      "QEMU closed its connection on the stream '%s' (channel %" PRIu32
                      ") before it had taken the last %" PRIu64
                      " bytes that were sent to it. The log of that QEMU says why.",
                      channels->options.streams->names[channel->stream], channel->number,
                      relay_dropped(&channel->relay));
        return;
    }
}
