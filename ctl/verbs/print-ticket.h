/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ctl/bus/tunnel.h"

/*
 * Prints what the other host needs, alone on standard output. ticket: NULL where the migration had its ticket
 * before. −1 if it could not be written: then no one has it, and nothing must wait for it.
 */
int print_ticket(const struct ctl *ctl, const struct tunnel *tunnel, const char *ticket,
                 struct trouble *trouble);
