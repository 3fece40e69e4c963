/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* watch --notify: tells the desktop what becomes of this user's migrations. Runs until it is interrupted. */

#include "ctl/loop.h"

int notify_run(struct ctl *ctl, struct trouble *trouble);
