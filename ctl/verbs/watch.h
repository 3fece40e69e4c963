/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Watching migrations until they are finished: watch, wait. Each verb returns the exit status, or -1 with a
 * trouble. */

#include "ctl/loop.h"

int verb_watch(struct ctl *ctl, struct trouble *trouble);
int verb_wait(struct ctl *ctl, struct trouble *trouble);
