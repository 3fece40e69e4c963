/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How many channels a user's migrations, and all of them, may have at once. */

#include <stdint.h>

#include "broker/config/config.h"
#include "broker/migration/registry.h"

#define QUOTA_WHY_MAX 192

/*
 * Whether the migration of this entry may have so many more channels than it has now: those that its helper
 * counts, and the sockets that wait to become one. 0, or -EDQUOT and why says which limit is in the way. What
 * was handed over a moment ago may not be counted yet.
 */
int quota_admit(const struct registry *registry, const struct config *config, const struct entry *entry,
                uint32_t more, char why[static QUOTA_WHY_MAX]);
