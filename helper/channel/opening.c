/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/channel/opening.h"

#include <inttypes.h>
#include <stdio.h>

#include "common/clock.h"
#include "helper/channel/table.h"
#include "helper/control/outbox.h"
#include "helper/limits.h"

/* ---- Source ---- */

static void ask_peer(struct channel *channel)
{
    struct channels *channels = channel->channels;
    bool asked;

    channel->n_dials++;
    requests_ask_peer(channels->options.requests, PEER_CHANNEL, channel->number, &asked);
    if (!asked)
        channels_fail(channels, VF_ERROR_HELPER_FAILED,
                      "The broker is gone, so that no connection can be made for a new channel.");
}

static int on_dial_time(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct channel *channel = userdata;

    if (channel_lives(channel) && !channels_halted(channel->channels) && !relay_peer(&channel->relay))
        ask_peer(channel);
    return 0;
}

/* False is a loss, which interrupts the migration. Both bounds are needed: DIALS_MAX stops a peer that hangs
 * up at once, DIALS_FOR one that takes its time with each. */
bool channel_dial_again(struct channel *channel)
{
    struct channels *channels = channel->channels;
    uint64_t wait;

    if (channel->n_dials >= DIALS_MAX || turn_now(channels->options.event) - channel->dialled > DIALS_FOR)
        return false;
    wait = (uint64_t)DIAL_AGAIN << (channel->n_dials - 1);
    channel->dial_timer = sd_event_source_disable_unref(channel->dial_timer);
    return sd_event_add_time_relative(channels->options.event, &channel->dial_timer, CLOCK_MONOTONIC, wait,
                                      1000, on_dial_time, channel) >= 0;
}

void channel_announce(struct channel *channel)
{
    struct channels *channels = channel->channels;
    struct frame open = {.type = FRAME_OPEN, .channel = channel->number, .stream = channel->stream};

    if (channels->options.role != ROLE_OUTGOING || channels->connection == 0 ||
        channel_is_said(channel, channel->said_open))
        return;
    /* OPEN goes before the dial: the destination parks a peer connection that overtakes it (PEER_PARKED), but
     * one whose channel it knows is used at once. */
    channel->said_open = channels->connection;
    control_send(channels->options.control, &open);
    if (channels_halted(channels))
        return;
    channel->n_dials = 0;
    channel->dialled = turn_now(channels->options.event);
    ask_peer(channel);
}

/* The channel of the lowest number from there on that is in a slot; NULL when there is none. */
static struct channel *next_known(struct channels *channels, uint64_t from)
{
    struct channel *next = NULL;

    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++) {
        struct channel *channel = &channels->all[i];

        if (channel->stage != CHANNEL_UNUSED && channel->number >= from &&
            (!next || channel->number < next->number))
            next = channel;
    }
    return next;
}

/*
 * In the order of their numbers, which the destination relies upon: an OPEN of a number below its `next` is
 * an old channel's. On a later control connection the ended ones are told, too, since the frame that ended
 * them may have been lost: CLOSE for what was proved, REFUSED for what was given up.
 */
void channels_announce_all(struct channels *channels)
{
    struct channel *channel;

    for (uint64_t from = 0; !channels_halted(channels) && (channel = next_known(channels, from));
         from = (uint64_t)channel->number + 1) {
        struct frame frame = {.type = FRAME_CLOSE, .channel = channel->number};

        if (channel_lives(channel)) {
            channel_announce(channel);
        } else if (channels->again) {
            if (channel->stage == CHANNEL_GIVEN_UP) {
                frame.type = FRAME_REFUSED;
                frame.refusal.error = VF_ERROR_INTERRUPTED;
                snprintf(frame.refusal.text, sizeof(frame.refusal.text),
                         "The source has given this channel up.");
            }
            control_send(channels->options.control, &frame);
        }
    }
}

/* ---- Destination ---- */

static int on_grace(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct channel *channel = userdata;

    channel->grace = GRACE_OVER;
    if (!channels_halted(channel->channels))
        channels_dial_stream(channel->channels, channel->stream);
    return 0;
}

int channel_begin_grace(struct channel *channel)
{
    struct channels *channels = channel->channels;
    int r = 0;

    if (channels->options.role != ROLE_INCOMING || channel->grace != GRACE_NOT_BEGUN)
        return 0;
    r = sd_event_add_time_relative(channels->options.event, &channel->grace_timer, CLOCK_MONOTONIC,
                                   DIAL_GRACE, 1000, on_grace, channel);
    if (r >= 0)
        channel->grace = GRACE_RUNS;
    return r;
}

/* The destination's QEMU takes connections for the source's in the order in which it accepts them. So only
 * the oldest channel of a stream may be dialled, one at a time; a younger one waits even if its bytes are
 * here. */
struct channel *channel_to_dial(struct channels *channels, uint32_t stream)
{
    struct channel *first = NULL;

    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++) {
        struct channel *channel = &channels->all[i];

        if (channel->stage == CHANNEL_OPENING && channel->stream == stream && !relay_qemu(&channel->relay) &&
            (!first || channel->number < first->number))
            first = channel;
    }
    if (!first || !relay_peer(&first->relay))
        return NULL;
    /* A new QEMU looks at the first bytes at once: they should be there, but where silence is by design. */
    return relay_has_input(&first->relay) || first->grace == GRACE_OVER ? first : NULL;
}

void channels_dial_stream(struct channels *channels, uint32_t stream)
{
    struct channel *first = channel_to_dial(channels, stream);

    if (!first || requests_has_qemu(channels->options.requests, stream))
        return;
    if (!requests_ask_qemu(channels->options.requests, first->number, stream))
        channels_fail(channels, VF_ERROR_HELPER_FAILED,
                      "The broker is gone, so that QEMU cannot be connected for a new channel.");
}
