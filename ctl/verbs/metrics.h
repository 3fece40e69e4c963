/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Figures as OpenMetrics text. Each verb returns the exit status, or -1 with a trouble. */

#include <json-c/json.h>
#include <stdio.h>

#include "ctl/loop.h"

int verb_metrics(struct ctl *ctl, struct trouble *trouble);

/* A broker's record and a list of those of its migrations, as text. */
void metrics_print(FILE *file, bool openmetrics, json_object *broker, json_object *list);
