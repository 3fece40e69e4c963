/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The lowest connection of a stream is QEMU's main one, and says whether all is well. QEMU closes others
 * before that, with something unread: 10 the one for preempted pages after a recovery (up to 8 bytes), 7.2
 * one of multifd (an empty packet). To end the migration for that would take the destination's last word from
 * the source, which then lets the guest run there as well. So what breaks off behind a main connection is
 * judged when all the others have ended. QEMU's end of the main one of the migration's stream, once it has
 * read all of that, proves that it has the guest: the rest is spared then, where it is short and QEMU
 * has taken what was before it. Else the migration has failed.
 */

#include "helper/channel/internal.h"

/* QEMU's connection of this channel is lost: false where that ends the migration. */
bool channel_break_off(struct channel *channel);

/* Whether it has broken off with a rest that is not spared. */
bool channel_is_short(const struct channel *channel);

/* After one has ended, or broken off: fails, or leaves them for later, or spares all that are left: then
 * true, and the caller settles these. */
bool channels_judge(struct channels *channels);
