/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One migration in its helper, from START to RESULT. */

#include <systemd/sd-event.h>

#include "common/message.h"
#include "helper/carrier/aead.h"
#include "helper/carrier/worker.h"
#include "helper/link.h"

struct session;

/* A new session for START_RELAY; takes stats_fd in any case, borrows the rest. 0 or a negative errno. */
int session_new(sd_event *event, struct link *link, struct workers *workers, const struct aead_choice *aeads,
                const struct message_start_relay *start, int stats_fd, struct session **ret);
struct session *session_free(struct session *session);
