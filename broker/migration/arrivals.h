/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Peer connections that the gate hands up: to which migration each goes, or why it is rejected. */

#include "broker/net/port.h"

struct manager;

struct arrivals {
    struct manager *manager; /* borrowed */
    uint32_t n_rejected;     /* for the log */
};

/* userdata: a struct arrivals. */
extern const struct port_events arrivals_events;
