/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ctl/drive/drive.h"

/*
 * Tries once, every few seconds, to resume a post-copy that is paused: tells the destination's QEMU to listen
 * again, where it is in our hands, and the source's to connect. Whether that works is seen by looking on.
 */
void recover_try(struct drive *drive);

/* The destination's part of it. The tunnel must be there. */
int recover_destination(struct drive *drive, struct trouble *trouble);
