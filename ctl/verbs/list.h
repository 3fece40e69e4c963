/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ctl/loop.h"

/* A table of the migrations: those that run first, and finished ones with --all. */
int verb_list(struct ctl *ctl, struct trouble *trouble);
