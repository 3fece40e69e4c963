/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * --ssh: the connections between the two helpers, each by an ssh of its own, so that no channel waits behind
 * another. The brokers get them by AddPeerConnection; nothing listens, nothing is dialled.
 */

#include "ctl/bus/tunnel.h"

struct peers;

/* For so many channels at once, and the control connection. */
int peers_new(const struct tunnel *source, const struct tunnel *destination, unsigned channels,
              struct peers **ret, struct trouble *trouble);

/* Brings a whole set of them: at first, and after each loss of the network. */
int peers_supply(struct peers *peers, struct trouble *trouble);

/* The source's helper waits for connections: brings them, unless it was tried a moment ago. */
void peers_mend(struct peers *peers);

/* Forgets them and lets them run: they end with the migration. */
void peers_leave(struct peers *peers);

void peers_free(struct peers *peers);
