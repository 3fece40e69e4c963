/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the driver of a migration knows of QEMU, and tells a broker. A broker of before knows no reports: that
 * is no trouble, and neither is any other. */

#include "common/outcome.h"
#include "ctl/bus/tunnel.h"

struct report_progress {
    const char *phase;
    uint32_t pass;
    uint64_t memory_total, memory_remaining;
    uint64_t dirty_rate; /* bytes/s */
    uint64_t disk_total, disk_remaining;
};

/* Does not wait for an answer. */
void report_progress(const struct tunnel *tunnel, const struct report_progress *progress);

/* Returns when the broker has it. */
void report_outcome(const struct tunnel *tunnel, const struct outcome *outcome);
