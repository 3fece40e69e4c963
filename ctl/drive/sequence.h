/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What programs see of a migration that is driven: with --json=seq an object each second, and one at the end.
 */

#include "ctl/drive/ends.h"
#include "ctl/terminal/progress.h"

struct drive;

/* With --json=seq: prints it, unless it did so less than a second ago. */
void sequence_show(struct drive *drive, const struct progress *progress);

/*
 * It did not come to a good end: prints an object that says how, with any --json=, unless one was printed.
 * phase: how far it was. drive: NULL where it had not begun.
 */
void sequence_fail(struct ends *ends, struct drive *drive, const char *phase, const struct trouble *trouble);
