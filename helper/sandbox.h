/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * How a helper locks itself in, in stages that only ever take away. All of it happens before the first byte
 * from outside, whatever started the helper: under systemd the unit has taken most of it away already.
 */

#include "common/message.h"

/*
 * Should: be called first of all. Keeps stdin, stdout, stderr and fd; closes every other descriptor; limits
 * what the process may take; drops root, all groups and capabilities; no_new_privs; not dumpable.
 * Mustn't: be called with threads running, or after anything was opened that is to stay.
 * 0 or a negative errno.
 */
int sandbox_isolate(int fd);

/*
 * Should: be called when all that has to be created is there (event loop, timer).
 * From then on only the calls of the list are possible; any other, and any of another architecture, kills the
 * process with SIGSYS. 0 or a negative errno.
 */
int sandbox_lock(void);

/*
 * Should: be called once the role is known. A relay can accept no connections after it, and no filter can be
 * added any more. 0 or a negative errno.
 */
int sandbox_narrow(bool gate);
