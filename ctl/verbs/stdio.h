/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Internal: the far end of an ssh connection (ssh/remote.h has the near one). Each verb returns the exit
 * status, or -1 with a trouble. */

#include "ctl/loop.h"

int verb_stdio(struct ctl *ctl, struct trouble *trouble);
