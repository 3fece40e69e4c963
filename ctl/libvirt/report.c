/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <string.h>

#include "common/cleanup.h"
#include "ctl/libvirt/internal.h"

/* A call to the source's broker that wants no answer: an older one has no such method. */
static sd_bus_message *begin(struct move *move, const char *member)
{
    sd_bus_message *m = NULL;

    if (!move->tunnel.path ||
        side_message(&move->source, move->tunnel.path, MIGRATION_INTERFACE, member, &m, NULL) < 0)
        return NULL;
    sd_bus_message_set_expect_reply(m, false);
    return m;
}

void report_progress(struct move *move, const char *phase)
{
    const struct job_stats *stats = &move->stats;
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;

    if (ctl_now() < move->reported + SECOND / 2)
        return;
    move->reported = ctl_now();
    m = begin(move, "ReportProgress");
    if (m && sd_bus_message_append(m, "a{sv}", 5, "phase", "s", phase, "memory-total", "t", stats->total,
                                   "memory-remaining", "t", stats->remaining, "dirty-rate", "t", stats->dirty,
                                   "pass", "u", (uint32_t)stats->passes) >= 0)
        sd_bus_send(move->source.bus, m, NULL);
}

void report_outcome(struct move *move, const char *outcome, const char *reason)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = begin(move, "Report");
    int r = m ? sd_bus_message_append(m, "s", outcome) : -1;

    if (r >= 0 && reason[0])
        r = sd_bus_message_append(m, "a{sv}", 1, "reason", "s", reason);
    else if (r >= 0)
        r = sd_bus_message_append(m, "a{sv}", 2, "downtime-usec", "t", move->stats.downtime_msec * 1000,
                                  "total-usec", "t", move->stats.elapsed_msec * 1000);
    if (r >= 0)
        sd_bus_send(move->source.bus, m, NULL);
}
