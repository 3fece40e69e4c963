/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/drive/recover.h"

#include "ctl/drive/internal.h"
#include "ctl/drive/view.h"

#define AGAIN (3 * SECOND)

/* The network that was lost may have carried the ssh to the destination as well. */
static int reach_destination(struct drive *drive, struct trouble *trouble)
{
    struct ctl *ctl = drive->ends->ctl;

    if (drive->ends->destination_qmp && qmp_is_open(drive->ends->destination_qmp))
        return 0;
    qmp_free(drive->ends->destination_qmp);
    drive->ends->destination_qmp = NULL;
    side_close(drive->ends->destination);
    if (side_open_host(ctl, drive->ends->host, drive->ends->destination, trouble) < 0)
        return -1;
    if (qmp_open(drive->ends->destination, ctl->arguments.dst_qmp, &drive->ends->destination_qmp, trouble) <
        0)
        return -1;
    view_be_patient(drive, drive->ends->destination_qmp);
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
        ctl_say(drive->ends->ctl,
                "%s: paused, for the connection was lost. It is resumed as soon as that works%s.",
                drive->ends->vm,
                drive->ends->destination ? "" : ": run 'vmferryctl receive … --resume' at the destination");
        drive->told = true;
    }
    if (drive->ends->destination)
        r = reach_destination(drive, &why) < 0 ? -1 : ends_listen_again(drive->ends, &why);
    if (r >= 0 && tunnel_check_socket(&drive->ends->tunnel, qmp_uid(drive->ends->qmp), &why) >= 0 &&
        qemu_migrate(drive->ends->qmp, drive->ends->tunnel.socket, true, &why) >= 0)
        drive->since = now;
    trouble_clear(&why); /* it is tried again, until Ctrl-C */
}
