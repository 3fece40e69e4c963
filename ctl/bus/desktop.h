/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The desktop of this session: org.freedesktop.Notifications on the session's bus. */

#include "ctl/loop.h"

enum urgency {
    URGENCY_LOW,
    URGENCY_NORMAL,
    URGENCY_CRITICAL, /* stays until the user has seen it */
};

/* Opens the session's bus. The loop ends with it, as the session does. */
int desktop_open(struct ctl *ctl, sd_bus **ret, struct trouble *trouble);

/*
 * Shows a notification in place of the one with this id (0: a new one), and puts its id there. The texts are
 * plain: what a desktop would take for markup is escaped here. A desktop that shows none is said on stderr.
 */
void desktop_show(sd_bus *bus, const struct ctl *ctl, uint32_t *id, enum urgency urgency, const char *title,
                  const char *text);
