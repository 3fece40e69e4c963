/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the driver tells the brokers of both hosts, as far as it has them in hand, so that all others see it.
 */

#include "common/outcome.h"
#include "ctl/drive/internal.h"

/* How far it is; once a second, and when the phase changes. Keeps the tunnel from ending before the outcome.
 */
void drive_report_progress(struct drive *drive);

/* The VM has moved: told as soon as QEMU says so, for the tunnel's end waits for it; the times follow. */
void drive_report_moved(struct drive *drive);

/* What became of the VM, with a trouble's text as the reason. run_state: "" where it is not known. */
void drive_report(struct drive *drive, enum vf_outcome outcome, const char *run_state,
                  const struct trouble *trouble);
