/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How channels begin: the source announces them, the destination connects them to QEMU. */

#include "helper/channel/internal.h"

/* Source: tells the peer of the channel and asks for its peer connection, once per control connection. */
void channel_announce(struct channel *channel);

/* Source: that connection has failed before its proof, and is asked for again in a moment. False where that
 * was done often enough. */
bool channel_dial_again(struct channel *channel);

/* Source: says of every channel that there has been what it is, for the peer may have missed it. */
void channels_announce_all(struct channels *channels);

/* Destination: begins to wait for the channel's first bytes. A QEMU that is silent by design gets its
 * connection after DIAL_GRACE all the same. 0 or a negative errno. */
int channel_begin_grace(struct channel *channel);

/* Destination: asks for a connection to this stream's QEMU, if one is due and none is under way. */
void channels_dial_stream(struct channels *channels, uint32_t stream);

/* Destination: the channel that takes the next connection to this stream's QEMU, or NULL. */
struct channel *channel_to_dial(struct channels *channels, uint32_t stream);
