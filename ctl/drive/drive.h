/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A migration of a QEMU from its first command to its end: 'send --qmp' at the source alone, 'migrate' with
 * both ends in hand.
 */

#include "ctl/drive/ends.h"

/*
 * Tells QEMU to migrate (or to resume) through the tunnel, which is connected, and stays until it is over.
 * Returns the exit status, or -1 with a trouble; nothing of the migration is left then, unless the trouble
 * says so.
 */
int drive_run(struct ends *ends, struct trouble *trouble);
