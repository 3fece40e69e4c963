/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The gate: a helper that accepts on the peer port, reads the 32 bytes of preamble under a deadline and
 * hands (kind, id, FD) to the broker, which knows the migrations. It is the only process reachable from the
 * network without proof, and holds no secret.
 */

#include <systemd/sd-event.h>

#include "common/message.h"
#include "helper/link.h"

struct gate;

/* 0 or a negative errno. Takes over the link's handlers. */
int gate_new(sd_event *event, struct link *link, const struct message_start_gate *start, struct gate **ret);
struct gate *gate_free(struct gate *gate);
