/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/drive/handover.h"

#include <string.h>

#include "common/cleanup.h"
#include "ctl/drive/internal.h"

/* QEMU's word: a suspended VM comes over as one that is to go on, too, and is suspended again then
 * (since 8.2). */
static bool is_live(const char *state)
{
    return strcmp(state, "running") == 0 || strcmp(state, "suspended") == 0;
}

/* A VM that is resumed ran before: only such a one gets into post-copy. */
static bool must_run(const struct drive *drive)
{
    return is_live(drive->state) || drive->ends->resume;
}

/*
 * In these the source does not let the VM go on any more, whatever happens. Post-copy: QEMU 7.2 and 10 set
 * the status before they send the devices' state, and can fall back to "failed" until that is done; they hold
 * the lock meanwhile, without which the monitor does not answer. So an answer that was asked for when the
 * destination had the devices' state is one of afterwards.
 */
static bool has_let_go(enum qemu_phase phase)
{
    return phase == QEMU_DONE || phase == QEMU_POSTCOPY || phase == QEMU_PAUSED;
}

int handover_hold(struct ends *ends, struct trouble *trouble)
{
    /* QEMU that waits for a VM has nothing to stop: 'stop' undoes its autostart, as -S does. */
    if (qmp_execute(ends->destination_qmp, "stop", NULL, NULL, trouble) < 0)
        return -1;
    ends->held = true;
    return 0;
}

bool handover_is_due(const struct drive *drive)
{
    return drive->ends->destination_qmp && qmp_is_open(drive->ends->destination_qmp) && !drive->begun &&
           must_run(drive) && (drive->asked || has_let_go(drive->info.phase));
}

bool handover_is_near(const struct drive *drive)
{
    return handover_is_due(drive) && !drive->refused.text &&
           (drive->arrived[0] == '\0' || strcmp(drive->arrived, "inmigrate") == 0 ||
            strcmp(drive->arrived, "paused") == 0);
}

bool handover_holds(const struct drive *drive)
{
    return drive->ends->held && !drive->begun;
}

/*
 * The one moment that can make two VMs of one. 'cont' is sent to the destination only when
 *
 *     the source has let go        it will never run the VM again, even if all is lost now
 *     the destination is 'paused'  it has the devices' state
 *     the source was asked again   after that, for a post-copy: see has_let_go()
 */
void handover_try(struct drive *drive)
{
    struct qmp *there = drive->ends->destination_qmp;

    if (!handover_is_due(drive) || !has_let_go(drive->info.phase) ||
        qemu_run_state(there, drive->arrived, NULL) < 0)
        return;
    if (strcmp(drive->arrived, "paused") == 0) {
        if (drive->info.phase != QEMU_DONE &&
            (qemu_query(drive->ends->qmp, &drive->info, NULL) < 0 || !has_let_go(drive->info.phase)))
            return;
        trouble_clear(&drive->refused);
        drive->ends->held = false; /* it may start the VM, and end before it says so */
        if (qmp_execute(there, "cont", NULL, NULL, &drive->refused) < 0) {
            drive->ends->held = qmp_is_open(there);
            return;
        }
        qemu_run_state(there, drive->arrived, NULL);
    }
    drive->begun = is_live(drive->arrived);
}
