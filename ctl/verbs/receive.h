/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The destination's half of a migration. Each verb returns the exit status, or -1 with a trouble. */

#include "ctl/loop.h"

int verb_receive(struct ctl *ctl, struct trouble *trouble);
