/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The endings of a migration that is driven. Each returns the exit status, or -1 with a trouble. */

#include "ctl/drive/internal.h"

/* QEMU at the source says that the VM has moved. */
int outcome_done(struct drive *drive, struct trouble *trouble);

/* QEMU says that it did not move. */
int outcome_failed(struct drive *drive, struct trouble *trouble);

/* Ctrl-C before post-copy: QEMU gives up, and the VM stays at the source. */
int outcome_cancelled(struct drive *drive, struct trouble *trouble);
