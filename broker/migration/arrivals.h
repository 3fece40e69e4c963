/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Peer connections that the gate hands up: to which migration each goes, or why it is rejected. */

#include "broker/log-sample.h"
#include "broker/migration/registry.h"
#include "broker/net/port.h"

struct arrivals {
    const struct registry *registry; /* borrowed */
    struct log_samples rejected;     /* by the peer's host */
};

/* userdata: a struct arrivals. */
extern const struct port_events arrivals_events;
