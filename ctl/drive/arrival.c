/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/drive/arrival.h"

#include <string.h>

#include "common/cleanup.h"
#include "ctl/drive/handover.h"
#include "ctl/drive/report.h"

#define LOOK (SECOND / 100)

static bool is_running(const char *state)
{
    return strcmp(state, "running") == 0;
}

enum arrival arrival_wait(struct drive *drive)
{
    unsigned interrupts = drive->ends->ctl->interrupts;

    while (drive->ends->destination_qmp) {
        struct qemu_info info;

        handover_try(drive);
        drive_report_progress(drive);
        if (qemu_query(drive->ends->destination_qmp, &info, NULL) < 0 ||
            qemu_run_state(drive->ends->destination_qmp, drive->arrived, NULL) < 0)
            break;
        if (info.phase == QEMU_DONE && !handover_is_near(drive))
            return ARRIVAL_DONE;
        if (info.phase == QEMU_FAILED)
            return ARRIVAL_FAILED;
        if (drive->ends->ctl->interrupts > interrupts || ctl_turn(drive->ends->ctl, LOOK, NULL) < 0)
            break;
    }
    return ARRIVAL_UNKNOWN;
}

int arrival_settle(struct drive *drive, struct trouble *trouble)
{
    const char *refused = drive->refused.text ? drive->refused.text : "";
    size_t size = strlen(refused);

    if (drive->state[0] == '\0' && (!handover_is_due(drive) || drive->begun))
        return 0;
    if (drive->state[0] && is_running(drive->state) == is_running(drive->arrived))
        return 0;
    if (is_running(drive->arrived))
        return trouble_set(trouble, STATUS_FAILED,
                           "VM '%s' was '%s' at the source, and is running at %s now. Tell QEMU there 'stop' "
                           "if it must not.",
                           drive->ends->vm, drive->state, drive->ends->host);
    return trouble_set(trouble, STATUS_FAILED,
                       "VM '%s' has moved, and stands still: it ran at the source, and QEMU at %s says that "
                       "it is '%s'%s%.*s. Look at QEMU's log there, then tell it 'cont'.",
                       drive->ends->vm, drive->ends->host, drive->arrived, size > 0 ? ": " : "",
                       (int)(size > 0 && refused[size - 1] == '.' ? size - 1 : size), refused);
}
