/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/session/failure.h"

#include <errno.h>
#include <string.h>

#include "helper/session/end.h"
#include "helper/session/redial.h"
#include "helper/session/resume.h"

/* Only a word of the peer's is final: all else may be the network, which comes back, or another host that has
 * one of the peer's addresses. */

/* The one that was to follow a lost control connection. */
static void resume_failed(struct session *session, const struct peer_failure *failure)
{
    bool complete = channels_are_complete(session->channels);

    /* By falling doubt: what may be another host's word; what has not been said often enough; then the peer's
     * own word. A complete ledger needs no repetition: the peer has gone, for it had proved all of it before.
     */
    if (!failure->believed || (failure->error != -ECONNREFUSED && failure->error != -EKEYREJECTED)) {
        session_not_rejected(session);
        session_redial(session);
    } else if (!session_is_rejected(session) && !complete)
        session_redial(session);
    else if (failure->error == -ECONNREFUSED && failure->rejected == VF_ERROR_CANCELLED)
        session_end(session, VF_ERROR_CANCELLED, false,
                    "Cancelled at the destination, while the network was away.");
    else if (complete) /* the peer had proved it first, and has gone */
        session_end_done(session);
    else
        session_end(session, VF_ERROR_INTERRUPTED, false,
                    "%s Meanwhile the peer has given this migration up.", session->why);
}

/* The peer's gate has rejected the first control connection. */
static void control_rejected(struct session *session, uint32_t error)
{
    switch (error) {
    case VF_ERROR_TICKET_USED:
        session_end(session, error, true,
                    "The peer says that this ticket has been used already. Call PrepareIncoming for a new "
                    "one.");
        break;
    case VF_ERROR_TICKET_EXPIRED:
        session_end(session, error, true,
                    "The peer says that this ticket has expired. Call PrepareIncoming for a new one.");
        break;
    case VF_ERROR_PROTOCOL_MISMATCH:
        session_end(session, error, true,
                    "The peer speaks another version of the protocol (ours is %d). Upgrade the older "
                    "vmferry.",
                    PROTOCOL_VERSION);
        break;
    default:
        session_end(session, VF_ERROR_PEER_REJECTED, true,
                    "The peer does not expect this migration (any more). Call PrepareIncoming there for a "
                    "ticket.");
        break;
    }
}

/* The first control connection. */
static void control_failed(struct session *session, const struct peer_failure *failure)
{
    if (failure->error == -ECONNREFUSED)
        control_rejected(session, failure->rejected);
    else if (failure->error == -EKEYREJECTED)
        session_end(session, VF_ERROR_PEER_REJECTED, true,
                    "The peer and this side do not hold the same secret (the control connection). Use the "
                    "ticket that the peer's PrepareIncoming gave, unchanged.");
    else if (failure->error == -ETIMEDOUT)
        session_end(session, VF_ERROR_PEER_UNREACHABLE, true,
                    "The peer accepted the control connection but did not answer within %d s. Is a vmferryd "
                    "listening there?",
                    PEER_DEADLINE / 1000000);
    else if (failure->brought || !session_dial_first_again(session))
        session_end(session, VF_ERROR_PEER_REJECTED, true,
                    "The peer closed the control connection during the handshake (%s).",
                    strerror(-failure->error));
}

void session_on_peer_failed(void *userdata, const struct peer_failure *failure)
{
    struct session *session = userdata;

    if (failure->error == -EMFILE)
        session_end(session, VF_ERROR_LIMIT_EXCEEDED, true,
                    "More than %d connections to the peer are being made.", PEERS_MAX);
    else if (failure->kind == PEER_CHANNEL && !channels_lives(session->channels, failure->channel))
        return; /* the channel has ended meanwhile */
    else if (failure->error == -EBADMSG)
        session_end(session, VF_ERROR_PROTOCOL_MISMATCH, true,
                    "The peer greeted channel %u with what cannot be. " ADVICE, failure->channel);
    else if (failure->kind == PEER_CHANNEL && !failure->brought && failure->error != -EKEYREJECTED &&
             channels_dial_again(session->channels, failure->channel))
        return;
    else if (failure->kind == PEER_CHANNEL)
        session_interrupt(session, "A channel's connection to the peer failed (%s).",
                          strerror(-failure->error));
    else if (failure->kind == PEER_RESUME)
        resume_failed(session, failure);
    else
        control_failed(session, failure);
}
