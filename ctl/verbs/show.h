/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* All about migrations: status, show. Each verb returns the exit status, or -1 with a trouble. */

#include "ctl/loop.h"

int verb_status(struct ctl *ctl, struct trouble *trouble);
int verb_show(struct ctl *ctl, struct trouble *trouble);
