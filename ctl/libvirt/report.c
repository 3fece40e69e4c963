/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/libvirt/report.h"

#include <string.h>

#include "common/message.h"
#include "ctl/bus/report.h"

#define OFTEN (SECOND / 4) /* a broker takes no more */

void move_report_progress(struct move *move, const char *phase)
{
    const struct job_stats *stats = &move->stats;
    const struct report_progress progress = {
        .phase = phase,
        .pass = (uint32_t)stats->passes,
        .memory_total = stats->total,
        .memory_remaining = stats->processed > 0 ? stats->remaining : stats->total,
        .dirty_rate = move->near_state == DOMAIN_RUNS ? stats->dirty : 0,
        .disk_total = stats->disk_total,
        .disk_remaining = stats->disk_remaining,
    };
    uint64_t now = ctl_now();

    if (now < move->reported + (phase == move->phase ? SECOND : OFTEN))
        return;
    move->reported = now;
    move->phase = phase;
    report_progress(&move->tunnel, &progress);
    report_progress(&move->far_tunnel, &progress);
}

void move_report(struct move *move, enum vf_outcome outcome, enum domain_state state, const char *reason)
{
    struct outcome told = {
        .outcome = outcome,
        .downtime = move->stats.downtime_msec * 1000,
        .total = move->stats.elapsed_msec * 1000,
    };

    if (outcome == VF_OUTCOME_MOVED && move->host)
        message_text_set(told.host, sizeof(told.host), move->host);
    if (state == DOMAIN_RUNS || state == DOMAIN_PAUSED)
        message_text_set(told.run_state, sizeof(told.run_state), state == DOMAIN_RUNS ? "running" : "paused");
    message_text_set(told.reason, sizeof(told.reason), reason);
    report_outcome(&move->tunnel, &told);
    report_outcome(&move->far_tunnel, &told);
}
