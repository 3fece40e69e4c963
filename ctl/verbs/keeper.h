/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The destination's half of the hand-over for 'receive': a process that stays when 'receive' has returned,
 * holds QEMU's monitor, and lets the VM run there once the source is known to have let go of it.
 * docs/hand-over.md says how that is known with one monitor.
 */

#include "ctl/bus/tunnel.h"
#include "ctl/qemu/qmp.h"
#include "ctl/qemu/settings.h"

/*
 * Makes that process, before anything is opened. Returns 1 in it, with an FD for keeper_detach(). Returns 0
 * in the caller, once the keeper has detached itself or ended: *ret_status is the exit status then. Or -1.
 */
int keeper_fork(struct ctl *ctl, int *ret_fd, int *ret_status, struct trouble *trouble);

/* Lets the caller return, and leaves its terminal. Takes fd. */
void keeper_detach(int fd);

/*
 * Stays until the VM has arrived, or cannot any more. starts: it is to run then. Sets QEMU back. What it does
 * goes to the journal, for nothing reads its stderr.
 */
void keeper_stay(const struct tunnel *tunnel, struct qmp *qmp, struct settings *before, bool starts);
