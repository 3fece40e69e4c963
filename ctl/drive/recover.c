/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/drive/recover.h"

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
    if (tunnel_check_socket(&drive->destination_tunnel, qmp_uid(drive->destination_qmp), trouble) < 0)
        return -1;
    if (qemu_listen(drive->destination_qmp, drive->destination_tunnel.socket, true, &refused) < 0 &&
        !(refused.text && strstr(refused.text, "triggered already"))) /* it listens since the last try */
        return trouble_set(trouble, refused.status, "%s",
                           refused.text ? refused.text : "QEMU cannot listen.");
    return 0;
}

/* The network that was lost may have carried the ssh to the destination as well. */
static int reach_destination(struct drive *drive, struct trouble *trouble)
{
    struct ctl *ctl = drive->ctl;

    if (drive->destination_qmp && qmp_is_open(drive->destination_qmp))
        return 0;
    qmp_free(drive->destination_qmp);
    drive->destination_qmp = NULL;
    side_close(drive->destination);
    if (side_open_host(ctl, drive->host, drive->destination, trouble) < 0)
        return -1;
    if (qmp_open(drive->destination, ctl->arguments.dst_qmp, &drive->destination_qmp, trouble) < 0)
        return -1;
    drive_be_patient(drive, drive->destination_qmp);
    return 0;
}

void recover_try(struct drive *drive)
{
    uint64_t now = ctl_now();
    struct trouble why = {0};
    int r = 0;

    if (drive->tried > 0 && now < drive->tried + AGAIN)
        return;
    drive->tried = now;
    if (!drive->told) {
        meter_clear(&drive->meter);
        ctl_say(drive->ctl, "%s: paused, for the connection was lost. It is resumed as soon as that works%s.",
                drive->vm,
                drive->destination ? "" : ": run 'vmferryctl receive … --resume' at the destination");
        drive->told = true;
    }
    if (drive->destination)
        r = reach_destination(drive, &why) < 0 ? -1 : recover_destination(drive, &why);
    if (r >= 0 && tunnel_check_socket(&drive->tunnel, qmp_uid(drive->qmp), &why) >= 0 &&
        qemu_migrate(drive->qmp, drive->tunnel.socket, true, &why) >= 0)
        drive->since = now;
    trouble_clear(&why); /* it is tried again, until Ctrl-C */
}
