/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One channel after an event. */

#include "helper/channel/internal.h"

/* Takes fd, a connection to the local QEMU. */
void channel_set_qemu(struct channel *channel, int fd, bool shared);

/* Takes the peer connection. */
void channel_set_peer(struct channel *channel, struct carrier *carrier);

/* After any event: moves the bytes, and then channel_settle(). */
void channel_update(struct channel *channel);

/* After an event that brings nothing to be moved: acts upon what the relay came to, says what follows from
 * it, closes the channel where that is all, and else waits for what comes next. */
void channel_settle(struct channel *channel);

/* Gives it up after a loss that lasts; at a destination, one of which both flows are proved here ends well.
 */
void channel_abandon(struct channel *channel);
