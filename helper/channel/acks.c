/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/channel/acks.h"

#include "common/timer.h"
#include "helper/control/outbox.h"
#include "helper/limits.h"

void channel_ack(struct channel *channel)
{
    struct frame ack = {.type = FRAME_ACK, .channel = channel->number};

    if (channel->channels->connection == 0)
        return;
    ack.offset = relay_tell(&channel->relay);
    control_send(channel->channels->options.control, &ack);
}

void channel_ack_owed(struct channel *channel)
{
    if (relay_owed(&channel->relay) != 0)
        channel_ack(channel);
}

static int on_ack_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct channels *channels = userdata;

    crew_set_ack_timer(channels->crew, false); /* first: what is moved from here on tells */
    for (size_t i = 0; i < STATS_CHANNELS_MAX && !channels_halted(channels); i++)
        if (channel_lives(&channels->all[i]))
            channel_ack_owed(&channels->all[i]);
    return 0;
}

void channel_ack_in_time(struct channel *channel)
{
    struct channels *channels = channel->channels;
    uint64_t owed = relay_owed(&channel->relay);

    if (!channel_lives(channel) || channels->connection == 0)
        return;
    if (owed >= FLOW_ACK_STEP)
        channel_ack(channel);
    else if (owed > 0)
        crew_set_ack_timer(channels->crew, timer_arm_once(channels->options.event, &channels->ack_timer,
                                                          ACK_DELAY, on_ack_timer, channels) >= 0);
}
