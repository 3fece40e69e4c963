/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ctl/bus/record.h"

/* A table of the migrations: those that run first, and finished ones with --all. */
int verb_list(struct ctl *ctl, struct trouble *trouble);

/* All migrations of the broker, as a JSON array. */
int list_read(struct side *side, json_object **ret, struct trouble *trouble);
