/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/drive/ends.h"

#include <string.h>

#include "common/cleanup.h"

/* The main channel, one for each of multifd's, one for each disk, and one for whatever QEMU has in addition.
 */
static unsigned channels_of(const struct ends *ends)
{
    return (unsigned)ends->ctl->arguments.multifd + disks_count(ends->disks) + 2;
}

static int make_peers(struct ends *ends, struct trouble *trouble)
{
    if (peers_new(&ends->tunnel, &ends->destination_tunnel, channels_of(ends), &ends->peers, trouble) < 0)
        return -1;
    return ends->taken ? 0 : peers_supply(ends->peers, trouble); /* those that it goes by are there */
}

/* A tunnel from one to the other. The ticket goes from reply to call, and nowhere else. */
static int make_tunnel(struct ends *ends, struct trouble *trouble)
{
    const struct arguments *a = &ends->ctl->arguments;
    _cleanup_(tunnel_forget_ticket) char *ticket = NULL;
    char near[16], far[16];
    struct tunnel_shape shape = {.owner = tunnel_owner(a, qmp_uid(ends->destination_qmp), far),
                                 .disks = disks_count(ends->disks) > 0 && !ends->resume};

    if (tunnel_prepare_as(ends->destination, ends->vm, &shape, &ends->destination_tunnel, &ticket, trouble) <
        0)
        return -1;
    shape.owner = tunnel_owner(a, qmp_uid(ends->qmp), near);
    if (tunnel_start_as(ends->source, ends->vm, ticket, &shape, &ends->tunnel, trouble) < 0)
        return -1;
    return a->ssh ? make_peers(ends, trouble) : 0;
}

/* That of the post-copy that is paused, where both ends still have it. 1: they do, 0, or -1. */
static int find_tunnel(struct ends *ends, struct trouble *trouble)
{
    int near = tunnel_find(ends->source, ends->vm, "outgoing", qmp_uid(ends->qmp), &ends->tunnel, trouble),
        far;

    if (near < 0)
        return -1;
    far = tunnel_find(ends->destination, ends->vm, "incoming", qmp_uid(ends->destination_qmp),
                      &ends->destination_tunnel, trouble);
    if (far < 0)
        return -1;
    ends->found =
        near > 0 && far > 0 && strcmp(tunnel_id(&ends->tunnel), tunnel_id(&ends->destination_tunnel)) == 0;
    if (ends->found)
        return ends->ctl->arguments.ssh && make_peers(ends, trouble) < 0 ? -1 : 1;
    if (ends->taken) { /* QEMU has come to its end, or will see to it that it does */
        ends->found = true;
        return 1;
    }
    /* One of them alone is of no use any more; both QEMUs are paused, and lose nothing by its end. */
    tunnel_cancel(&ends->tunnel);
    tunnel_clear(&ends->tunnel);
    tunnel_cancel(&ends->destination_tunnel);
    tunnel_clear(&ends->destination_tunnel);
    return 0;
}

int ends_open_tunnel(struct ends *ends, struct trouble *trouble)
{
    int r = ends->resume ? find_tunnel(ends, trouble) : 0;

    if (r != 0)
        return r;
    r = make_tunnel(ends, trouble);
    return r < 0 ? r : tunnel_wait_connected(&ends->tunnel, trouble);
}

int ends_renew_tunnel(struct ends *ends, struct trouble *trouble)
{
    peers_free(ends->peers);
    ends->peers = NULL;
    tunnel_cancel(&ends->tunnel);
    tunnel_clear(&ends->tunnel);
    tunnel_cancel(&ends->destination_tunnel);
    tunnel_clear(&ends->destination_tunnel);
    return make_tunnel(ends, trouble) < 0 ? -1 : tunnel_wait_connected(&ends->tunnel, trouble);
}

int ends_listen_again(const struct ends *ends, struct trouble *trouble)
{
    _cleanup_(trouble_clear) struct trouble refused = {0};
    struct qemu_info info;

    if (qemu_query(ends->destination_qmp, &info, trouble) < 0)
        return -1;
    if (info.phase != QEMU_PAUSED)
        return trouble_set(
            trouble, STATUS_FAILED,
            "%s does not say that its side is paused, but '%s': it has not noticed the loss yet.",
            qmp_name(ends->destination_qmp), info.status);
    if (tunnel_check_socket(&ends->destination_tunnel, qmp_uid(ends->destination_qmp), trouble) < 0)
        return -1;
    if (qemu_listen(ends->destination_qmp, ends->destination_tunnel.socket, true, &refused) < 0 &&
        !(refused.text && strstr(refused.text, "triggered already"))) /* it listens since the last try */
        return trouble_set(trouble, refused.status, "%s",
                           refused.text ? refused.text : "QEMU cannot listen.");
    return 0;
}

void ends_undo(struct ends *ends)
{
    disks_undo(ends->disks);
    if (!ends->found) {
        tunnel_cancel(&ends->tunnel);
        tunnel_cancel(&ends->destination_tunnel);
    }
    if (ends->qmp)
        settings_restore(ends->qmp, &ends->before);
    if (ends->destination_qmp)
        settings_restore(ends->destination_qmp, &ends->destination_before);
}

void ends_clear(struct ends *ends)
{
    tunnel_clear(&ends->tunnel);
    tunnel_clear(&ends->destination_tunnel);
    settings_clear(&ends->before);
    settings_clear(&ends->destination_before);
    peers_free(ends->peers);
    disks_free(ends->disks);
    qmp_free(ends->qmp);
    qmp_free(ends->destination_qmp);
    *ends = (struct ends){0};
}
