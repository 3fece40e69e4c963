/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/session/session.h"

#include <errno.h>
#include <string.h>

/*
 * What the migration comes to when a connection that the source made fails, and why. Only a word of the
 * peer's is final: all else may be the network, which comes back.
 */

/* The one that was to follow a lost control connection. */
static void resume_failed(struct peer *peer, int r)
{
    struct session *session = peer->session;

    if (r != -ECONNREFUSED && r != -EKEYREJECTED) {
        session->n_rejections = 0;
        session_redial(session);
    } else if (++session->n_rejections < REJECTIONS_MAX && !session_complete(session))
        session_redial(session); /* anybody on the way can say so, and a gate that has just been started */
    else if (r == -ECONNREFUSED && peer->carrier->handshake.rejected == VF_ERROR_CANCELLED)
        session_end(session, VF_ERROR_CANCELLED, false,
                    "Cancelled at the destination, while the network was away.");
    else if (session_complete(session)) /* the peer had proved it first, and has gone */
        session_end(session, VF_ERROR_NONE, false, "%s", "");
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
static void control_failed(struct peer *peer, int r)
{
    struct session *session = peer->session;

    if (r == -ECONNREFUSED)
        control_rejected(session, peer->carrier ? peer->carrier->handshake.rejected : 0);
    else if (r == -EKEYREJECTED)
        session_end(session, VF_ERROR_PEER_REJECTED, true,
                    "The peer and this side do not hold the same secret (the control connection). Use the "
                    "ticket that the peer's PrepareIncoming gave, unchanged.");
    else if (r == -ETIMEDOUT)
        session_end(session, VF_ERROR_PEER_UNREACHABLE, true,
                    "The peer accepted the control connection but did not answer within %d s. Is a vmferryd "
                    "listening there?",
                    PEER_DEADLINE / 1000000);
    else
        session_end(session, VF_ERROR_PEER_REJECTED, true,
                    "The peer closed the control connection during the handshake (%s).", strerror(-r));
}

void peer_connecting_failed(struct peer *peer, int r)
{
    struct session *session = peer->session;

    if (peer->kind == PEER_CHANNEL && !channel_find(session, peer->channel))
        return; /* the channel has ended meanwhile */
    if (r == -EBADMSG)
        session_end(session, VF_ERROR_PROTOCOL_MISMATCH, true,
                    "The peer greeted channel %u with what cannot be. " ADVICE, peer->channel);
    else if (peer->kind == PEER_CHANNEL)
        session_interrupt(session, "A channel's connection to the peer failed (%s).", strerror(-r));
    else if (peer->kind == PEER_RESUME)
        resume_failed(peer, r);
    else
        control_failed(peer, r);
}
