/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The hand-over: the VM's CPUs start at the destination only once the source's QEMU is known to have let go,
 * so that it never runs on both. docs/hand-over.md has the states.
 */

#include "ctl/drive/ends.h"

struct drive;

/* Before the destination's QEMU is told to listen: from now on it does not start the VM by itself. */
int handover_hold(struct ends *ends, struct trouble *trouble);

/*
 * After each answer of the source's: starts the VM at the destination as soon as the source has let go of it,
 * has arrived, and ran before. Best effort: the next call tries again. Fills in drive->arrived.
 */
void handover_try(struct drive *drive);

/* Whether the source has let go, or will in a moment, and the VM does not run at the destination yet. */
bool handover_is_due(const struct drive *drive);

/* The same, and nothing else than the source is waited for: it has not refused, and is in no other state. */
bool handover_is_near(const struct drive *drive);

/* Whether QEMU at the destination was told not to start the VM by itself, and has not been told to. */
bool handover_holds(const struct drive *drive);
