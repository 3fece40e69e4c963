/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the broker was asked for and has not brought: a peer connection (source), a connection to a channel's
 * QEMU (destination). Each is answered once.
 *
 * A broker that was restarted knows of no request that the one before it had taken: so all that is not
 * answered is asked for again. What the old one had answered lies before SYNC in the socket.
 */

#include <stdbool.h>
#include <stdint.h>

#include "common/message.h"
#include "helper/link.h"

struct requests;

/* Borrows link. NULL without memory. */
struct requests *requests_new(struct link *link);
struct requests *requests_free(struct requests *requests);

/*
 * Asks for a peer connection, for PEER_CHANNEL that of this channel. Returns its serial, which is never 0.
 * ret_asked: false where the broker is gone.
 */
uint32_t requests_ask_peer(struct requests *requests, enum peer_kind kind, uint32_t channel, bool *ret_asked);

/* Whether this peer connection was asked for, and neither it nor a failure has come. */
bool requests_awaits_peer(struct requests *requests, uint32_t kind, uint32_t serial);

/* It has come: false where it was not awaited. Until requests_end_peer() it has yet to prove itself. */
bool requests_on_peer(struct requests *requests, uint32_t kind, uint32_t serial, uint32_t *ret_channel);
void requests_end_peer(struct requests *requests, uint32_t serial);

/* What the broker says of one that has come: by which of the peer's endpoints, from 1 on, and how many others
 * there are to try. 0: by none of them. */
void requests_peer_endpoint(struct requests *requests, uint32_t serial, uint32_t endpoint, uint32_t others);

/* Why one came to nothing. */
struct peer_no {
    int error;         /* a negative errno */
    uint32_t rejected; /* enum vf_error; with -ECONNREFUSED */
    bool believed; /* it came from where the peer has proved itself before, or from the only place there is */
};

/*
 * It has not proved itself, which anything that answers at one of the peer's endpoints can bring about: asks
 * for it by another one. False where there is none, or the broker is gone: then *no becomes the most telling
 * of all those that there have been.
 */
bool requests_try_next(struct requests *requests, uint32_t serial, struct peer_no *no);

/* The most telling one before a PEER_FAILED; false where there was none that says more than that. */
bool requests_last_no(struct requests *requests, uint32_t serial, struct peer_no *ret);

/* It has proved itself. */
void requests_peer_proved(struct requests *requests, uint32_t serial);

/* A request of this kind is under way. */
bool requests_has_peer(const struct requests *requests, enum peer_kind kind);

/* The connection to the peer is lost: of what was asked for over it, nothing counts any more. */
void requests_drop_peers(struct requests *requests);

/* Asks for the connection to a channel's QEMU: false where the broker is gone. One per stream at a time. */
bool requests_ask_qemu(struct requests *requests, uint32_t channel, uint32_t stream);
bool requests_has_qemu(struct requests *requests, uint32_t stream);

/* An answer of either kind has come for this stream: whether it was for this channel, and that still wants
 * it. */
bool requests_on_qemu(struct requests *requests, uint32_t channel, uint32_t stream);

/* The channel has ended: what was asked for on its behalf is not asked for again. */
void requests_give_up(struct requests *requests, uint32_t channel);

/* Whether anything waits for what only a broker can bring. */
bool requests_wait(const struct requests *requests);

/* To a new broker: asks for all that is not answered once more. */
void requests_repeat(struct requests *requests);
