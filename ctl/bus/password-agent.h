/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ctl/loop.h"

/*
 * Where there is a terminal, root is not the caller and --no-ask-password is not given: starts pkttyagent(1),
 * which asks for passwords there. It ends with this program. Without it calls are refused instead; so its
 * failure is none here.
 */
void password_agent_start(const struct ctl *ctl);
