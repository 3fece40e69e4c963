/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The lowest connection of a stream is QEMU's main one, and says whether all is well. QEMU 10 closes the one
 * for preempted pages before that, after a recovery with up to 8 bytes unread. To end the migration for that
 * would take the destination's last word from the source, which then lets the guest run there as well. So
 * what breaks off behind a main connection is judged when all the others have ended: what QEMU's socket has
 * taken is delivered, and where it did not take the rest the migration has failed then.
 */

#include "helper/channel/internal.h"

/* QEMU's connection of this channel is lost: false where that ends the migration. */
bool channel_break_off(struct channel *channel);

/* Whether it has broken off with a rest. */
bool channel_is_short(const struct channel *channel);

/* After one has ended, or broken off: fails where nothing is left but such a rest, or it is no mere rest. */
void channels_judge(struct channels *channels);
