/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/session/session.h"

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
    /* A new QEMU looks at the first bytes at once: they should be there, but where silence is by design. */
    return first->in.ring.end > 0 || first->in.ending || first->graced ? first : NULL;
}

void channel_dial(struct session *session, uint32_t stream)
{
    struct channel *first = first_to_dial(session, stream);

    if (!first || (session->dialling & (1U << stream)))
        return;
    first->dial = DIAL_ASKED;
    if (!sync_need_qemu(first))
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
