/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the totals of the host take from each migration. */

#include "broker/migration/registry.h"
#include "broker/migration/services.h"
#include "broker/migration/status.h"
#include "broker/totals.h"

/* It is about to get this state: the time for which it was interrupted is taken. */
void accounts_set_state(const struct migration_services *services, struct entry *entry,
                        enum message_state state);

/* Adds a finished one to the totals, unless it was; and its downtime, as soon as that is told.
 * migration_save() is the caller's. */
void accounts_add(const struct migration_services *services, struct entry *entry,
                  const struct migration_status *status);

/* The totals now: what moves of those that are yet to be added counts, too. */
void accounts_sum(const struct migration_services *services, struct totals_sums *ret);
