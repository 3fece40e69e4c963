/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the brokers of both hosts are told, as far as they are in hand. */

#include "common/outcome.h"
#include "ctl/libvirt/internal.h"

/* How far it is, once a second and when the phase changes. */
void move_report_progress(struct move *move, const char *phase);

/* What became of the VM. state: where it is; reason: "" for none. */
void move_report(struct move *move, enum vf_outcome outcome, enum domain_state state, const char *reason);
