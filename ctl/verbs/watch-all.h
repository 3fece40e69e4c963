/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ctl/loop.h"

/* Shows all migrations, once a second, until Ctrl-C: on a terminal the table, redrawn; else a line for each
 * of which something has changed. Returns the exit status, or -1 with a trouble. */
int watch_all(struct ctl *ctl, struct trouble *trouble);
