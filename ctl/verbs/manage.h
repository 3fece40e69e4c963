/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What is done to a migration that is there: cancel, limit, forget. Each verb returns the exit status, or -1
 * with a trouble. */

#include "ctl/loop.h"

int verb_cancel(struct ctl *ctl, struct trouble *trouble);
int verb_limit(struct ctl *ctl, struct trouble *trouble);
int verb_forget(struct ctl *ctl, struct trouble *trouble);
