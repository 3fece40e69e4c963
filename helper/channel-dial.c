/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "session.h"

/* The destination's connections to QEMU: which channel's turn it is. */

/* QEMU takes its connections in the order in which it accepts them: one at a time, in the source's order. */
static struct channel *first_to_dial(struct session *session, uint32_t stream)
{
    struct channel *first = NULL;

    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++) {
        struct channel *channel = &session->channels[i];

        if (channel->stage == CHANNEL_OPENING && channel->stream == stream && channel->dial != DIAL_DONE &&
            (!first || channel->number < first->number))
            first = channel;
    }
    if (!first || !first->carrier)
        return NULL;
    /* A new QEMU looks at the first bytes at once, so they should be there; what is silent by design is not.
     */
    return first->in.ring.end > 0 || first->in.ending || first->graced ? first : NULL;
}

void channel_dial(struct session *session, uint32_t stream)
{
    struct channel *first = first_to_dial(session, stream);
    union message m = {0};

    if (!first || (session->dialling & (1U << stream)))
        return;
    first->dial = DIAL_ASKED;
    session->dialling |= 1U << stream;
    m.need_qemu.channel = first->number;
    m.need_qemu.stream = stream;
    if (!link_send(session->link, MESSAGE_NEED_QEMU, &m, -1))
        session_end(session, VF_ERROR_HELPER_FAILED, true,
                    "The broker is gone, so that QEMU cannot be connected for a new channel.");
}

struct channel *channel_dialled(struct session *session, uint32_t number, uint32_t stream)
{
    struct channel *channel = channel_find(session, number);

    session->dialling &= ~(1U << stream);
    if (channel && channel->dial == DIAL_ASKED)
        return channel;
    return first_to_dial(session, stream); /* the one that it was for was given up meanwhile */
}
