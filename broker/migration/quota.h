/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How many channels a user's migrations, and all of them, may have at once. */

#include <stdint.h>

struct migration;

#define QUOTA_WHY_MAX 192

/*
 * Whether this migration may have so many more channels than it has now: those that its helper counts, and
 * the sockets that wait to become one. 0, or -EDQUOT and why says which limit is in the way. What was handed
 * over a moment ago may not be counted yet.
 */
int quota_admit(const struct migration *migration, uint32_t more, char why[static QUOTA_WHY_MAX]);
