/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Moves a VM, with both hosts in hand. Each verb returns the exit status, or -1 with a trouble. */

#include "ctl/loop.h"

int verb_migrate(struct ctl *ctl, struct trouble *trouble);
