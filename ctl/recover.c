/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "recover.h"

#include <string.h>

#include "common/cleanup.h"

#define AGAIN (3 * SECOND)

int recover_destination(struct drive *drive, struct trouble *trouble)
{
    _cleanup_(trouble_clear) struct trouble refused = {0};
    struct qemu_info info;

    if (qemu_query(drive->destination_qmp, &info, trouble) < 0)
        return -1;
    if (info.phase != QEMU_PAUSED)
        return trouble_set(
            trouble, STATUS_FAILED,
            "%s does not say that its side is paused, but '%s': it has not noticed the loss yet.",
            qmp_name(drive->destination_qmp), info.status);
    if (qemu_listen(drive->destination_qmp, drive->destination_tunnel.socket, true, &refused) < 0 &&
        !(refused.text && strstr(refused.text, "triggered already"))) /* it listens since the last try */
        return trouble_set(trouble, refused.status, "%s",
                           refused.text ? refused.text : "QEMU cannot listen.");
    return 0;
}

int recover_try(struct drive *drive, struct trouble *trouble)
{
    uint64_t now = ctl_now();
    struct trouble why = {0};
    int r = 0;

    if (drive->tried > 0 && now < drive->tried + AGAIN)
        return 1;
    drive->tried = now;
    if (!drive->told) {
        meter_clear(&drive->meter);
        ctl_say(drive->ctl, "%s: paused, for the connection was lost. It is resumed as soon as that works%s.",
                drive->vm,
                drive->destination ? "" : ": run 'vmferryctl receive … --resume' at the destination");
        drive->told = true;
    }
    if (drive->destination_qmp)
        r = recover_destination(drive, &why);
    if (r >= 0 && qemu_migrate(drive->qmp, drive->tunnel.socket, true, &why) >= 0)
        drive->since = now;
    trouble_clear(&why); /* it is tried again */
    if (!qmp_is_open(drive->qmp) || (drive->destination_qmp && !qmp_is_open(drive->destination_qmp)))
        return trouble_set(
            trouble, STATUS_FAILED,
            "The post-copy of VM '%s' is paused, and a QEMU's monitor is lost. Nothing else is: recover it "
            "with --resume.",
            drive->vm);
    return 1;
}
