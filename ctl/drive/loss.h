/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The endings without an end: a QEMU or the connection is lost, or Ctrl-C leaves a post-copy. What is said is
 * what both QEMUs and the tunnel say then. Each returns the exit status, or -1 with a trouble.
 */

#include "ctl/drive/internal.h"

/* Ctrl-C in post-copy: nothing is stopped. */
int outcome_detached(struct drive *drive, struct trouble *trouble);

/* The post-copy is paused, and is not recovered by this vmferryctl. */
int outcome_paused(struct drive *drive, struct trouble *trouble);

/* SIGTERM or SIGHUP, or no way to the source's monitor (why; NULL): the migration goes on without this
 * program. */
int outcome_left(struct drive *drive, const char *why, struct trouble *trouble);

/* The source's monitor is lost; the trouble that is set says how. */
int outcome_lost(struct drive *drive, struct trouble *trouble);
