/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/drive/arrival.h"

#include <string.h>

#include "common/cleanup.h"
#include "ctl/drive/internal.h"

static bool is_running(const char *state)
{
    return strcmp(state, "running") == 0;
}

/* QEMU's -S takes the start away that comes with the VM: it is "paused" then, whatever it was before. */
static int start(struct drive *drive, struct trouble *trouble)
{
    if (qmp_execute(drive->ends->destination_qmp, "cont", NULL, NULL, trouble) < 0 ||
        qemu_run_state(drive->ends->destination_qmp, drive->arrived, trouble) < 0)
        return -1;
    meter_clear(&drive->meter);
    ctl_say(drive->ends->ctl, "%s: it came to %s paused, as QEMU's option -S has it, and was told to go on.",
            drive->ends->vm, drive->ends->host);
    return 0;
}

void arrival_begin(struct drive *drive)
{
    if (drive->begun || !drive->ends->destination_qmp || !is_running(drive->state) ||
        qemu_run_state(drive->ends->destination_qmp, drive->arrived, NULL) < 0)
        return;
    if (strcmp(drive->arrived, "paused") == 0)
        start(drive, NULL);
    drive->begun = is_running(drive->arrived);
}

enum arrival arrival_wait(struct drive *drive)
{
    unsigned interrupts = drive->ends->ctl->interrupts;

    while (drive->ends->destination_qmp) {
        struct qemu_info info;

        if (qemu_query(drive->ends->destination_qmp, &info, NULL) < 0 ||
            qemu_run_state(drive->ends->destination_qmp, drive->arrived, NULL) < 0)
            break;
        if (info.phase == QEMU_DONE)
            return ARRIVAL_DONE;
        if (info.phase == QEMU_FAILED)
            return ARRIVAL_FAILED;
        if (drive->ends->ctl->interrupts > interrupts || ctl_turn(drive->ends->ctl, SECOND / 10, NULL) < 0)
            break;
    }
    return ARRIVAL_UNKNOWN;
}

int arrival_settle(struct drive *drive, struct trouble *trouble)
{
    _cleanup_(trouble_clear) struct trouble refused = {0};

    if (drive->state[0] == '\0' || is_running(drive->state) == is_running(drive->arrived))
        return 0;
    if (is_running(drive->arrived))
        return trouble_set(trouble, STATUS_FAILED,
                           "VM '%s' was '%s' at the source, and is running at %s now. Tell QEMU there 'stop' "
                           "if it must not.",
                           drive->ends->vm, drive->state, drive->ends->host);
    if (strcmp(drive->arrived, "paused") == 0 && start(drive, &refused) >= 0 && is_running(drive->arrived))
        return 0;
    return trouble_set(trouble, STATUS_FAILED,
                       "VM '%s' has moved, and stands still: it ran at the source, and QEMU at %s says that "
                       "it is '%s'.%s%s Look at QEMU's log there, then tell it 'cont'.",
                       drive->ends->vm, drive->ends->host, drive->arrived, refused.text ? " " : "",
                       refused.text ? refused.text : "");
}
