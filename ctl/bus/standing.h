/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How a migration stands, for people and for scripts, by its record: the same words wherever it is shown. */

#include "ctl/bus/record.h"
#include "ctl/terminal/progress.h"
#include "ctl/trouble.h"

bool standing_is_finished(json_object *record);

/* What became of it: the outcome where it was told, else what the tunnel proves ("carried", "failed", …); ""
 * while it runs. */
const char *standing_outcome(json_object *record);

/* One word: that where it is finished; else "interrupted", its phase where that was told, or its state. */
const char *standing_word(json_object *record);

/* Why it failed or is interrupted, without the migration's name, which the broker's message begins with; "".
 */
const char *standing_reason(json_object *record);

/* The exit status of a finished one, and the trouble that says why it is not 0. */
int standing_judge(json_object *record, struct trouble *trouble);

/* The line that says how far it is. It borrows from the record. */
void standing_progress(json_object *record, struct progress *ret);
