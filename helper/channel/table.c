/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/channel/table.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "common/cleanup.h"
#include "helper/limits.h"

void channels_fail(struct channels *channels, enum vf_error error, const char *format, ...)
{
    char text[2 * MESSAGE_TEXT_MAX];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    channels->events->failed(channels->userdata, error, text);
}

struct channel *channel_find(struct channels *channels, uint32_t number)
{
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++)
        if (channel_lives(&channels->all[i]) && channels->all[i].number == number)
            return &channels->all[i];
    return NULL;
}

void channel_set_stage(struct channel *channel, enum channel_stage stage)
{
    static const char *const names[] = {
        [CHANNEL_UNUSED] = "unused", [CHANNEL_OPENING] = "opening",   [CHANNEL_OPEN] = "open",
        [CHANNEL_PROVED] = "proved", [CHANNEL_GIVEN_UP] = "given up",
    };

    /* It only goes forward, and ends once. */
    if (!channel_lives(channel) || stage <= channel->stage) {
        link_log(channel->channels->options.link, LOG_ERR, "Channel %" PRIu32 ": %s → %s cannot be.",
                 channel->number, names[channel->stage], names[stage]);
        return;
    }
    link_log(channel->channels->options.link, LOG_DEBUG, "channel %" PRIu32 ": %s → %s", channel->number,
             names[channel->stage], names[stage]);
    channel->stage = stage;
}

/* The way back carries requests, not memory. */
static size_t window_of(const struct channels *channels)
{
    size_t window = channels->options.window;

    return channels->options.role == ROLE_INCOMING && window > WINDOW_BACK ? WINDOW_BACK : window;
}

/* One that was never used before one whose numbers a client may still want to read. */
static struct channel *free_slot(struct channels *channels)
{
    struct channel *found = NULL;

    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++) {
        struct channel *slot = &channels->all[i];

        if (!channel_lives(slot) &&
            (!found || (found->stage != CHANNEL_UNUSED && slot->stage == CHANNEL_UNUSED)))
            found = slot;
    }
    return found;
}

/* libvirt's own calls: it makes them anew, or not at all, and no migration depends on one connection of them.
 */
static bool is_expendable(const struct channels *channels, uint32_t stream)
{
    return strcmp(channels->options.streams->names[stream], STREAM_LIBVIRT) == 0;
}

struct channel *channel_new(struct channels *channels, uint32_t number, uint32_t stream)
{
    const struct channels_options *options = &channels->options;
    struct channel *channel = NULL;

    if (channels->n_living < options->max_channels)
        channel = free_slot(channels);
    if (!channel)
        return NULL;
    const struct relay_options relay = {
        .pool = options->pool,
        .pacer = &channels->pace.pacer,
        .window = window_of(channels),
        .forgetful = !options->resumes,
        .expendable = is_expendable(channels, stream),
        .page = options->page,
        .slot = (size_t)(channel - channels->all),
    };
    *channel =
        (struct channel){.channels = channels, .stage = CHANNEL_OPENING, .number = number, .stream = stream};
    if (relay_init(&channel->relay, &relay, number, stream) < 0) {
        channel->stage = CHANNEL_UNUSED;
        return NULL;
    }
    channels->n_living++;
    return channel;
}

void channel_close(struct channel *channel)
{
    struct channels *channels = channel->channels;
    bool ended;

    if (!channel_lives(channel))
        return;
    /* heard_close of an older connection will do: the peer's CLOSE stays true. This side's has to be said on
     * the current one, or the peer may never have had it. */
    ended = channel_is_said(channel, channel->said_close) && channel->heard_close != 0;
    _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);
    channel_set_stage(channel, ended ? CHANNEL_PROVED : CHANNEL_GIVEN_UP);
    channels->n_living--;
    channel->grace_timer = sd_event_source_disable_unref(channel->grace_timer);
    channel->dial_timer = sd_event_source_disable_unref(channel->dial_timer);
    relay_close(&channel->relay, ended ? STATS_CHANNEL_CLOSED : STATS_CHANNEL_LOST);
    requests_give_up(channels->options.requests, channel->number);
    /* Last: the lock above is the owner's. Whatever a worker has noted of this channel is dropped with it. */
    crew_take_back(channels->crew, channel_slot(channel));
}

/* The peer may have taken bytes for it of which nothing is known here: so it counts wherever the peer may
 * know of it. */
void channel_give_up(struct channel *channel)
{
    if (channel_lives(channel) && channel_is_known(channel) &&
        !is_expendable(channel->channels, channel->stream))
        channel->channels->lost_streams |= 1U << channel->stream;
    channel_close(channel);
}
