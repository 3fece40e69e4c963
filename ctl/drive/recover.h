/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ctl/drive/internal.h"

enum reach {
    REACH_THERE,
    REACH_AWAY, /* its host, or who has its monitor, does not let us: that can change */
    REACH_GONE, /* its host answers, and no QEMU is there any more */
};

/* The destination's monitor, connected to again where the connection was lost. why: what is in the way. */
enum reach recover_reach(struct drive *drive, struct trouble *why);

/*
 * The source's monitor, whose connection was lost: over ssh that need not be QEMU's end. REACH_THERE: it is
 * connected to again, and the migration is followed on.
 */
enum reach recover_source(struct drive *drive, struct trouble *why);

/*
 * Tries once, every few seconds, to resume a post-copy that is paused: tells the destination's QEMU to listen
 * again, if vmferryctl drives that one as well, and the source's to connect, by another tunnel where that one
 * has finished. The next look at QEMU shows whether it worked. False: it can never work; drive->reason says
 * why.
 */
bool recover_try(struct drive *drive);
