/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Looks at what a migration needs, one thing after the other, and says for each what to do about it. Each
 * verb returns the exit status, or -1 with a trouble. */

#include "ctl/loop.h"

int verb_check(struct ctl *ctl, struct trouble *trouble);
