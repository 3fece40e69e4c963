/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/libvirt/view.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "ctl/libvirt/report.h"

void move_read_stats(struct move *move)
{
    struct job_stats now;

    job_read(move->near.libvirt, move->domain, false, &now);
    move->began = move->began || now.active;
    if (now.active || !move->began) {
        move->stats = now;
    } else {
        move->stats.active = false;
        move->stats.remaining = move->stats.disk_remaining = move->stats.dirty = 0;
    }
}

/* Of the domain, in the brokers' words. */
static const char *phase_of(const struct move *move, json_object *record)
{
    const struct job_stats *stats = &move->stats;

    /* libvirt calls it failed by its own keepalive, too, while the QEMUs go on. */
    if (move->near_state == DOMAIN_PAUSED_POSTCOPY_FAILED)
        return strcmp(record_text(record, "State"), "active") == 0 && record_number(record, "Rate") > 0
                   ? "post-copy"
               : move->ctl->arguments.resume ? "recovering"
                                             : "paused";
    if (move->near_state == DOMAIN_PAUSED_POSTCOPY)
        return "post-copy";
    if (!stats->active)
        return move->began ? "finishing" : "setup";
    return stats->processed == 0 && stats->disk_total > 0 ? "disks" : "pre-copy";
}

static double fraction_of(uint64_t total, uint64_t remaining)
{
    return total > 0 && remaining <= total ? 1 - (double)remaining / (double)total : -1;
}

void view_move(struct move *move, json_object *record)
{
    const struct job_stats *stats = &move->stats;
    const char *phase = phase_of(move, record);
    bool interrupted = strcmp(record_text(record, "State"), "interrupted") == 0;
    bool disks = strcmp(phase, "disks") == 0;
    double disk = fraction_of(stats->disk_total, stats->disk_remaining);
    char note[64] = "";
    int n = 0;

    move_report_progress(move, phase);
    if (stats->passes > 1)
        n = snprintf(note, sizeof(note), "pass %" PRIu64, stats->passes);
    if (disk >= 0 && !disks)
        snprintf(note + n, sizeof(note) - (size_t)n, "%sdisks %d %%", n > 0 ? ", " : "", (int)(disk * 100));
    meter_update(&move->meter,
                 &(struct progress){
                     .vm = move->vm,
                     .phase = interrupted ? "interrupted" : phase,
                     .fraction = disks                  ? disk
                                 : stats->processed > 0 ? fraction_of(stats->total, stats->remaining)
                                                        : -1,
                     .bytes = record_number(record, "BytesSent"),
                     .rate = record_number(record, "Rate"),
                     .has_memory = stats->total > 0 && !disks,
                     .dirty = move->near_state == DOMAIN_RUNS ? stats->dirty : 0,
                     .remaining = stats->remaining,
                     .reconnects = (uint32_t)record_number(record, "Reconnects"),
                     .note = note[0] ? note : NULL,
                 });
}
