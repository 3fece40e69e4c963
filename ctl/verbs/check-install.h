/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Whether vmferry is installed whole on a host: what systemd and D-Bus know of it. */

#include "ctl/bus/findings.h"
#include "ctl/bus/side.h"

/* Starts the broker of that side if none runs. False after a finding that says why it cannot start. */
bool check_install(struct check *check, struct side *side);
