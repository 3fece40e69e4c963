/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a migration stands on, and what it tells upward. Handed in once, and lent for as long as there are
 * migrations. */

#include <stdint.h>
#include <systemd/sd-event.h>

#include "broker/config/config.h"
#include "broker/store.h"

struct give;
struct helper_links;
struct migration;
struct port;
struct registry;
struct totals;

/* What of a migration has changed; bits. */
enum migration_change {
    CHANGE_STATE = 1 << 0, /* and why it is so */
    CHANGE_RESULT = 1 << 1,
    CHANGE_PEER = 1 << 2,
    CHANGE_UNIT = 1 << 3,
    CHANGE_LIMIT = 1 << 4,
    CHANGE_PROGRESS = 1 << 5,
    CHANGE_OUTCOME = 1 << 6,
};

struct migration_events {
    void (*made)(void *userdata, const struct migration *migration);
    void (*changed)(void *userdata, const struct migration *migration, unsigned what);
    void (*finished)(void *userdata, struct migration *migration); /* after changed() has said so */
    void (*removed)(void *userdata, const struct migration *migration);
};

/* In µs; a test has shorter ones. */
struct migration_timing {
    uint64_t stop; /* that a helper has to end as it was told */
    uint64_t idle; /* for which a connected migration waits for its first channel */
    uint64_t kept; /* for which a finished one stays readable */
};

/* All pointers are borrowed. */
struct migration_services {
    const struct config *config;
    sd_event *event;
    struct store *store;
    struct helper_links *helpers;
    struct give *give;
    struct port *port;
    struct registry *registry;
    struct totals *totals;
    int bus_fd; /* the broker's connection to the bus, which no caller can hand over; −1: none */
    const struct migration_timing *timing;
    const struct migration_events *events;
    void *userdata; /* of the events */
};
