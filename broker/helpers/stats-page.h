/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The broker's side of the counters that a helper writes (common/stats.h). */

#include <stdbool.h>

#include "common/stats.h"

struct stats_page {
    int fd;              /* owned; −1: none (any more) */
    struct stats *stats; /* to be read with STATS_READ(); NULL: none */
    bool detached;       /* stats is a copy of our own */
};

/* Makes the page, sealed to its size. stats_page_clear() in any case. 0 or a negative errno. */
int stats_page_make(struct stats_page *page);

/* Maps the page of a helper that a broker before this one had started; takes fd, on failure too.
 * stats_page_clear() in any case. 0 or a negative errno: -EBADMSG when it is too short, or can be shortened.
 */
int stats_page_map(struct stats_page *page, int fd);

/* From here on the numbers are ours: the page goes with its helper. Where there is no memory for them it
 * stays. */
void stats_page_detach(struct stats_page *page);

/* Unmaps or frees the numbers, and closes the page. */
void stats_page_clear(struct stats_page *page);

/* Bytes/s of the last second, both directions; 0 for a page that is detached. */
uint64_t stats_page_rate(const struct stats_page *page);
