/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The counters of a migration: the page that its helper shares with the broker (common/stats.h), and the
 * rate. */

#include <stdint.h>

#include "common/stats.h"

struct counters {
    struct stats *page; /* owned: mapped */
    uint64_t rated;     /* bytes of all channels, both ways, when the rate was taken last */
    uint64_t rated_at;  /* µs, CLOCK_MONOTONIC */
};

/* Takes fd, a sealed memfd, in any case. 0 or a negative errno. */
int counters_map(struct counters *counters, int fd);

/* Safe where nothing was mapped. */
void counters_unmap(struct counters *counters);

/* Takes the rate since the last call; now in µs, CLOCK_MONOTONIC. */
void counters_rate(struct counters *counters, uint64_t now);
