/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One function a verb: returns the exit status, or -1 with a trouble. */

#include "ctl/ctl.h"

int verb_list(struct ctl *ctl, struct trouble *trouble);
int verb_status(struct ctl *ctl, struct trouble *trouble);
int verb_show(struct ctl *ctl, struct trouble *trouble);
int verb_watch(struct ctl *ctl, struct trouble *trouble);
int verb_wait(struct ctl *ctl, struct trouble *trouble);
int verb_cancel(struct ctl *ctl, struct trouble *trouble);
int verb_limit(struct ctl *ctl, struct trouble *trouble);
int verb_forget(struct ctl *ctl, struct trouble *trouble);
int verb_receive(struct ctl *ctl, struct trouble *trouble);
int verb_send(struct ctl *ctl, struct trouble *trouble);
int verb_migrate(struct ctl *ctl, struct trouble *trouble);
int verb_check(struct ctl *ctl, struct trouble *trouble);
int verb_metrics(struct ctl *ctl, struct trouble *trouble);
int verb_stdio(struct ctl *ctl, struct trouble *trouble);
