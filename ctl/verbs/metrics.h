/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Figures as OpenMetrics text. Each verb returns the exit status, or -1 with a trouble. */

#include "ctl/loop.h"

int verb_metrics(struct ctl *ctl, struct trouble *trouble);
