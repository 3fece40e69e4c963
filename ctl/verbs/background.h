/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * 'migrate' that does not end with its terminal: --background runs it as a service, and --attach runs the
 * command of one that has ended once more, with --resume, so that it takes the migration over. For that each
 * 'migrate' notes its command line down, readable for its user alone, until its migration is over.
 */

#include "ctl/loop.h"

/* Runs this command as a transient service; returns when QEMU was told to migrate. An exit status, or -1. */
int background_run(struct ctl *ctl, struct trouble *trouble);

/* Becomes the vmferryctl that was noted down for this VM; returns -1 where there is none. */
int background_attach(struct ctl *ctl, struct trouble *trouble);

/* Best effort: before QEMU is told to migrate, and when the migration is over. */
void background_note(const struct ctl *ctl);
void background_forget(const struct ctl *ctl);
