/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Candidates: peer connections from their FD to the proof that the other end holds the key. Anyone on the
 * network can open one at a destination, so there are so many and no more, each with a deadline. A preamble
 * with a mark tells the peer from others: it is not displaced by those without one, of which any may have to
 * give way to a newer one. Once the peer is known to make marks, only few go on without.
 */

#include <stdint.h>

#include "common/message.h"
#include "helper/peer/events.h"
#include "helper/protocol/key.h"

/* NULL without memory. */
struct peers *peers_new(const struct peers_options *options, const struct peer_events *events,
                        void *userdata);
struct peers *peers_free(struct peers *peers);

/* Connections of this kind are proved with this key from now on. 0 or a negative errno. */
int peers_set_key(struct peers *peers, enum peer_kind kind, const uint8_t key[static KEY_SIZE]);

/* The key has served: the peer is told so once it has proved that it holds it. */
void peers_use_key(struct peers *peers, enum peer_kind kind);

/* It has not served after all. */
void peers_serve_key(struct peers *peers, enum peer_kind kind);

/* Forgets the key: there are no connections of this kind any more. */
void peers_drop_key(struct peers *peers, enum peer_kind kind);

/* The peer has greeted: whether it reads and makes marks. */
void peers_set_marks(struct peers *peers, bool used);

/* A peer connection from the broker; takes fd. mark: what its preamble said, NULL for nothing. */
void peers_start(struct peers *peers, const struct message_peer *m, const struct message_mark *mark, int fd);

/* The channel is there: it gets the peer connection that came before it, if one did. */
void peers_unpark(struct peers *peers, uint32_t channel);

/* Gives up each connection whose deadline is past. Call it once per tick. */
void peers_expire(struct peers *peers);

/* The connection to the peer is lost: drops all but the connections for resuming that have arrived already,
 * and those that a caller brought. These are waited for, also where they came when all was halted. */
void peers_drop(struct peers *peers);

/* The migration has ended: waits for none any more. One that breaks now must not reach the peer before the
 * word that says why. */
void peers_quit(struct peers *peers);
