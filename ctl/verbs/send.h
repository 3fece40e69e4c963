/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The source's half of a migration. Each verb returns the exit status, or -1 with a trouble. */

#include "ctl/loop.h"

int verb_send(struct ctl *ctl, struct trouble *trouble);
