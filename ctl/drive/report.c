/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/drive/report.h"

#include <string.h>

#include "common/message.h"
#include "ctl/bus/report.h"

#define OFTEN (SECOND / 4) /* a broker takes no more */

static const char *phase_of(const struct drive *drive)
{
    const char *status = drive->info.status;

    switch (drive->info.phase) {
    case QEMU_PRECOPY:
        if (strcmp(status, "pre-switchover") == 0 || strcmp(status, "device") == 0)
            return "switchover";
        return strcmp(status, "active") == 0 ? "pre-copy" : "setup";
    case QEMU_POSTCOPY:
        return strcmp(status, "postcopy-recover") == 0 ? "recovering" : "post-copy";
    case QEMU_PAUSED:
        return drive_resumes(drive) ? "recovering" : "paused";
    case QEMU_NONE:
        return "setup";
    default:
        return "finishing";
    }
}

void drive_report_progress(struct drive *drive)
{
    const struct qemu_info *info = &drive->info;
    const struct report_progress progress = {
        .phase = phase_of(drive),
        .pass = (uint32_t)info->passes,
        .memory_total = info->total,
        .memory_remaining = info->transferred > 0 ? info->remaining : info->total,
        .dirty_rate = info->phase == QEMU_PRECOPY ? info->dirty : 0,
    };
    uint64_t now = ctl_now();

    if (now < drive->reported + (progress.phase == drive->phase ? SECOND : OFTEN))
        return;
    drive->reported = now;
    drive->phase = progress.phase;
    report_progress(&drive->ends->tunnel, &progress);
    report_progress(&drive->ends->destination_tunnel, &progress);
}

static void tell(struct drive *drive, struct outcome *outcome, const char *run_state, const char *reason)
{
    message_text_set(outcome->run_state, sizeof(outcome->run_state), run_state);
    message_text_set(outcome->reason, sizeof(outcome->reason), reason);
    report_outcome(&drive->ends->tunnel, outcome);
    report_outcome(&drive->ends->destination_tunnel, outcome);
}

void drive_report_moved(struct drive *drive)
{
    struct outcome outcome = {
        .outcome = VF_OUTCOME_MOVED,
        .downtime = drive->info.downtime_msec * 1000,
        .total = drive->info.total_msec * 1000,
    };

    if (drive->ends->host)
        message_text_set(outcome.host, sizeof(outcome.host), drive->ends->host);
    tell(drive, &outcome, drive->arrived, "");
}

void drive_report(struct drive *drive, enum vf_outcome outcome, const char *run_state,
                  const struct trouble *trouble)
{
    struct outcome told = {.outcome = outcome};

    tell(drive, &told, run_state, trouble && trouble->text ? trouble->text : "");
}
