/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ctl/drive/internal.h"

/*
 * Tries once, every few seconds, to resume a post-copy that is paused: tells the destination's QEMU to listen
 * again, if vmferryctl drives that one as well, and the source's to connect. The next look at QEMU shows
 * whether it worked.
 */
void recover_try(struct drive *drive);
