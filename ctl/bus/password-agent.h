/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ctl/loop.h"

/*
 * Starts pkttyagent(1), which asks for polkit's passwords on the terminal, unless there is none, the caller
 * is root, or --no-ask-password is given. It ends with this program. If it cannot start, the broker refuses
 * the calls instead: that is no trouble here.
 */
void password_agent_start(const struct ctl *ctl);
