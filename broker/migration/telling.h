/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What is told of a migration that the tunnel cannot know: by its owner, or by the source's through the peer.
 */

#include <systemd/sd-bus.h>

#include "broker/migration/report.h"
#include "common/message.h"

struct migration;

/* The owner says how far it is: stored and signalled, at most once a second. Negative with error set where
 * that comes too often. */
int telling_progress(struct migration *migration, const struct progress *progress, sd_bus_error *error);

/* The owner says what became of the VM. The same. */
int telling_outcome(struct migration *migration, const struct outcome *outcome, sd_bus_error *error);

/* From the helper: what it can do, and what the source's owner says. */
void telling_features(struct migration *migration, uint32_t features);
void telling_peer_outcome(struct migration *migration, const struct outcome *outcome);
