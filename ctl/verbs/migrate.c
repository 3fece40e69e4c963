/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/verbs/migrate.h"

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "ctl/drive/drive.h"

/* Control, the main channel, one for each of multifd's, and one for whatever QEMU has in addition. */
static unsigned channels_of(const struct arguments *a)
{
    return (unsigned)a->multifd + 2;
}

/* What the options say, in both QEMUs; all that must be alike is, or nothing was changed. */
static int prepare(struct ends *ends, struct trouble *trouble)
{
    const struct arguments *a = &ends->ctl->arguments;
    _cleanup_(settings_clear) struct settings source = {0}, destination = {0};

    if (settings_read(ends->qmp, &source, trouble) < 0 ||
        settings_read(ends->destination_qmp, &destination, trouble) < 0 ||
        settings_compare(a, &source, &destination, trouble) < 0 ||
        settings_apply(ends->qmp, a, SETTINGS_SOURCE, &source, NULL, &ends->before, trouble) < 0)
        return -1;
    if (settings_apply(ends->destination_qmp, a, SETTINGS_HELD_DESTINATION, &destination, &source,
                       &ends->destination_before, trouble) >= 0)
        return 0;
    settings_restore(ends->qmp, &ends->before);
    return -1;
}

/* Both QEMUs, told what the options say. */
static int open_qemus(struct ends *ends, struct trouble *trouble)
{
    const struct arguments *a = &ends->ctl->arguments;

    if (qmp_open(ends->source, a->qmp, &ends->qmp, trouble) < 0 ||
        qmp_open(ends->destination, a->dst_qmp, &ends->destination_qmp, trouble) < 0 ||
        qemu_check_source(ends->qmp, ends->vm, a->resume, trouble) < 0 ||
        qemu_check_destination(ends->destination_qmp, ends->vm, a->resume, trouble) < 0)
        return -1;
    return a->resume ? 0 : prepare(ends, trouble);
}

static int make_peers(struct ends *ends, struct trouble *trouble)
{
    if (peers_new(&ends->tunnel, &ends->destination_tunnel, channels_of(&ends->ctl->arguments), &ends->peers,
                  trouble) < 0)
        return -1;
    return peers_supply(ends->peers, trouble);
}

/* A tunnel from one to the other. The ticket goes from reply to call, and nowhere else. */
static int make_tunnel(struct ends *ends, struct trouble *trouble)
{
    const struct arguments *a = &ends->ctl->arguments;
    _cleanup_(tunnel_forget_ticket) char *ticket = NULL;
    char near[16], far[16];

    if (tunnel_prepare(ends->destination, ends->vm, tunnel_owner(a, qmp_uid(ends->destination_qmp), far),
                       &ends->destination_tunnel, &ticket, trouble) < 0 ||
        tunnel_start(ends->source, ends->vm, ticket, tunnel_owner(a, qmp_uid(ends->qmp), near), &ends->tunnel,
                     trouble) < 0)
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
    /* One of them alone is of no use any more; both QEMUs are paused, and lose nothing by its end. */
    tunnel_cancel(&ends->tunnel);
    tunnel_clear(&ends->tunnel);
    tunnel_cancel(&ends->destination_tunnel);
    tunnel_clear(&ends->destination_tunnel);
    return 0;
}

static int open_tunnel(struct ends *ends, struct trouble *trouble)
{
    int r = ends->resume ? find_tunnel(ends, trouble) : 0;

    if (r != 0)
        return r;
    r = make_tunnel(ends, trouble);
    return r < 0 ? r : tunnel_wait_connected(&ends->tunnel, trouble);
}

static int listen_there(struct ends *ends, struct trouble *trouble)
{
    if (ends->resume)
        return ends_listen_again(ends, trouble);
    if (tunnel_check_socket(&ends->destination_tunnel, qmp_uid(ends->destination_qmp), trouble) < 0)
        return -1;
    return qemu_listen(ends->destination_qmp, ends->destination_tunnel.socket, false, trouble);
}

int verb_migrate(struct ctl *ctl, struct trouble *trouble)
{
    const struct arguments *a = &ctl->arguments;
    _cleanup_(side_close) struct side source = {0}, destination = {0};
    _cleanup_(ends_clear) struct ends ends = {.ctl = ctl,
                                              .vm = a->operands[0],
                                              .host = a->operands[1],
                                              .resume = a->resume,
                                              .source = &source,
                                              .destination = &destination};

    if (ctl_catch_signals(ctl, trouble) < 0 || side_open(ctl, &source, trouble) < 0 ||
        side_open_host(ctl, ends.host, &destination, trouble) < 0 || open_qemus(&ends, trouble) < 0)
        return -1;
    if (open_tunnel(&ends, trouble) < 0 || listen_there(&ends, trouble) < 0) {
        ends_undo(&ends);
        return -1;
    }
    return drive_run(&ends, trouble);
}
