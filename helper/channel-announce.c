/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "session.h"

#include <inttypes.h>
#include <stdio.h>

/* What the source tells of its channels: of a new one, and, after a loss, of all. */

void channel_announce(struct channel *channel)
{
    struct session *session = channel->session;
    struct frame open = {.type = FRAME_OPEN, .channel = channel->number, .stream = channel->stream};

    if (channel->announced || session->role != ROLE_OUTGOING)
        return;
    channel->announced = channel->known = true;
    channel->serial = ++session->next_serial;
    control_send(session, &open);
    if (!session_halted(session) && !sync_need_peer(session, PEER_CHANNEL, channel->serial))
        session_end(session, VF_ERROR_HELPER_FAILED, true,
                    "The broker is gone, so that no connection can be made for a new channel.");
}

/* The channel of the lowest number from there on that is in a slot; NULL when there is none. */
static struct channel *next_known(struct session *session, uint64_t from)
{
    struct channel *next = NULL;

    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++) {
        struct channel *channel = &session->channels[i];

        if (channel->stage != CHANNEL_UNUSED && channel->number >= from &&
            (!next || channel->number < next->number))
            next = channel;
    }
    return next;
}

void channel_announce_all(struct session *session)
{
    struct channel *channel;

    for (uint64_t from = 0; !session_halted(session) && (channel = next_known(session, from));
         from = (uint64_t)channel->number + 1) {
        struct frame frame = {.type = FRAME_CLOSE, .channel = channel->number};

        if (channel_lives(channel)) {
            channel_announce(channel);
        } else if (session->adopted_again) {
            if (!channel->close_sent) {
                frame.type = FRAME_REFUSED;
                frame.refusal.error = VF_ERROR_INTERRUPTED;
                snprintf(frame.refusal.text, sizeof(frame.refusal.text),
                         "The source has given this channel up.");
            }
            control_send(session, &frame);
        }
    }
}
