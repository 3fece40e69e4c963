/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What is told of a migration that the tunnel cannot know: by its owner, or by the source's through the peer.
 */

#include <systemd/sd-bus.h>

#include "broker/migration/helper-side.h"
#include "broker/migration/news.h"
#include "broker/migration/registry.h"
#include "broker/migration/services.h"
#include "broker/migration/status.h"
#include "broker/rate.h"
#include "common/message.h"

struct telling {
    const struct migration_services *services; /* borrowed, as the next four: all of the migration */
    struct entry *entry;
    struct migration_status *status; /* its report is written here alone */
    struct helper_side *helper;
    struct news *news; /* of the progress */

    uint32_t features; /* enum helper_features */
    uint32_t n_peer;   /* outcomes that its peer told */
    struct rate reports, outcomes;
};

/* Borrows all five; all 0 before. */
void telling_init(struct telling *telling, const struct migration_services *services, struct entry *entry,
                  struct migration_status *status, struct helper_side *helper, struct news *news);

/* The owner says how far it is: stored and signalled, at most once a second. Negative with error set where
 * that comes too often. */
int telling_progress(struct telling *telling, const struct progress *progress, sd_bus_error *error);

/* The owner says what became of the VM. The same. */
int telling_outcome(struct telling *telling, const struct outcome *outcome, sd_bus_error *error);

/* From the helper: what it can do, and what the source's owner says. */
void telling_features(struct telling *telling, uint32_t features);
void telling_peer_outcome(struct telling *telling, const struct outcome *outcome);
