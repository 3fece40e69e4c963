/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/verbs/migrate.h"

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "ctl/drive/drive.h"
#include "ctl/drive/recover.h"

/* Control, the main channel, one for each of multifd's, and one for whatever QEMU has in addition. */
static unsigned channels_of(const struct arguments *a)
{
    return (unsigned)a->multifd + 2;
}

/* Both QEMUs, told what the options say. */
static int open_qemus(struct drive *drive, struct trouble *trouble)
{
    const struct arguments *a = &drive->ctl->arguments;

    if (qmp_open(drive->source, a->qmp, &drive->qmp, trouble) < 0 ||
        qmp_open(drive->destination, a->dst_qmp, &drive->destination_qmp, trouble) < 0 ||
        qemu_check_source(drive->qmp, drive->vm, a->resume, trouble) < 0 ||
        qemu_check_destination(drive->destination_qmp, drive->vm, a->resume, trouble) < 0)
        return -1;
    if (a->resume)
        return 0;
    if (qemu_prepare(drive->destination_qmp, a, false, &drive->destination_before, trouble) < 0)
        return -1;
    if (qemu_prepare(drive->qmp, a, true, &drive->before, trouble) >= 0)
        return 0;
    qemu_restore(drive->destination_qmp, &drive->destination_before);
    return -1;
}

static int make_peers(struct drive *drive, struct trouble *trouble)
{
    if (peers_new(&drive->tunnel, &drive->destination_tunnel, channels_of(&drive->ctl->arguments),
                  &drive->peers, trouble) < 0)
        return -1;
    return peers_supply(drive->peers, trouble);
}

/* A tunnel from one to the other. The ticket goes from reply to call, and nowhere else. */
static int make_tunnel(struct drive *drive, struct trouble *trouble)
{
    const struct arguments *a = &drive->ctl->arguments;
    _cleanup_(tunnel_forget_ticket) char *ticket = NULL;
    char near[16], far[16];

    if (tunnel_prepare(drive->destination, drive->vm, tunnel_owner(a, qmp_uid(drive->destination_qmp), far),
                       &drive->destination_tunnel, &ticket, trouble) < 0 ||
        tunnel_start(drive->source, drive->vm, ticket, tunnel_owner(a, qmp_uid(drive->qmp), near),
                     &drive->tunnel, trouble) < 0)
        return -1;
    return a->ssh ? make_peers(drive, trouble) : 0;
}

/* That of the post-copy that is paused, where both ends still have it. 1: they do, 0, or -1. */
static int find_tunnel(struct drive *drive, struct trouble *trouble)
{
    int near =
            tunnel_find(drive->source, drive->vm, "outgoing", qmp_uid(drive->qmp), &drive->tunnel, trouble),
        far;

    if (near < 0)
        return -1;
    far = tunnel_find(drive->destination, drive->vm, "incoming", qmp_uid(drive->destination_qmp),
                      &drive->destination_tunnel, trouble);
    if (far < 0)
        return -1;
    drive->found =
        near > 0 && far > 0 && strcmp(tunnel_id(&drive->tunnel), tunnel_id(&drive->destination_tunnel)) == 0;
    if (drive->found)
        return drive->ctl->arguments.ssh && make_peers(drive, trouble) < 0 ? -1 : 1;
    /* One of them alone is of no use any more; both QEMUs are paused, and lose nothing by its end. */
    tunnel_cancel(&drive->tunnel);
    tunnel_clear(&drive->tunnel);
    tunnel_cancel(&drive->destination_tunnel);
    tunnel_clear(&drive->destination_tunnel);
    return 0;
}

static int open_tunnel(struct drive *drive, struct trouble *trouble)
{
    int r = drive->resume ? find_tunnel(drive, trouble) : 0;

    if (r != 0)
        return r;
    r = make_tunnel(drive, trouble);
    return r < 0 ? r : tunnel_wait_connected(&drive->tunnel, trouble);
}

static int listen_there(struct drive *drive, struct trouble *trouble)
{
    if (drive->resume)
        return recover_destination(drive, trouble);
    if (tunnel_check_socket(&drive->destination_tunnel, qmp_uid(drive->destination_qmp), trouble) < 0)
        return -1;
    return qemu_listen(drive->destination_qmp, drive->destination_tunnel.socket, false, trouble);
}

int verb_migrate(struct ctl *ctl, struct trouble *trouble)
{
    const struct arguments *a = &ctl->arguments;
    _cleanup_(side_close) struct side source = {0}, destination = {0};
    _cleanup_(drive_clear) struct drive drive = {.ctl = ctl,
                                                 .vm = a->operands[0],
                                                 .host = a->operands[1],
                                                 .resume = a->resume,
                                                 .source = &source,
                                                 .destination = &destination};

    if (ctl_catch_signals(ctl, trouble) < 0 || side_open(ctl, &source, trouble) < 0 ||
        side_open_host(ctl, drive.host, &destination, trouble) < 0 || open_qemus(&drive, trouble) < 0)
        return -1;
    if (open_tunnel(&drive, trouble) < 0 || listen_there(&drive, trouble) < 0) {
        drive_undo(&drive);
        return -1;
    }
    return drive_run(&drive, trouble);
}
