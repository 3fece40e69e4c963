/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/libvirt/way.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"

/* Post-copy: a connection that the tunnel gives up can cost the guest, one that it keeps costs some memory.
 */
#define POSTCOPY_RESUME (86400 * SECOND)

/* Control, the main channel and QEMU's second one, NBD's, and libvirt's. */
#define PEERS_MORE 10

/* ---- The tunnel ---- */

static struct tunnel_shape shape_of(const struct move *move)
{
    const struct arguments *a = &move->ctl->arguments;

    return (struct tunnel_shape){.owner = a->socket_owner,
                                 .layout = move->far_name,
                                 .disks = a->disks != NULL,
                                 .libvirt = move->p2p,
                                 .resume_timeout = a->postcopy != POSTCOPY_NO ? POSTCOPY_RESUME : 0};
}

/* ssh logs in there while the hosts connect: 'libvirt-in' hands a connection to libvirtd to the broker. */
static int begin_supply(struct move *move, struct trouble *trouble)
{
    const char *const what[] = {"libvirt-in", move->far_tunnel.path, NULL};

    return move->p2p && move->destination.host
               ? remote_begin(move->ctl, move->destination.host, false, what, &move->supplier, trouble)
               : 0;
}

static int make_tunnel(struct move *move, const char *given, struct trouble *trouble)
{
    const struct arguments *a = &move->ctl->arguments;
    _cleanup_(tunnel_forget_ticket) char *ticket = NULL;
    struct tunnel_shape shape = shape_of(move);
    char owner[16];
    uid_t uid;

    if (!given && (tunnel_prepare_as(&move->destination, move->far_name, &shape, &move->far_tunnel, &ticket,
                                     trouble) < 0 ||
                   begin_supply(move, trouble) < 0))
        return -1;
    /* A domain can have a user of its own; at the destination LibvirtUser= says it. Only root may name one.
     */
    if (!shape.owner && move->source.uid == 0 && domain_uid(move->near.libvirt, move->domain, &uid)) {
        snprintf(owner, sizeof(owner), "%u", (unsigned)uid);
        shape.owner = owner;
    }
    if (tunnel_start_as(&move->source, move->vm, given ? given : ticket, &shape, &move->tunnel, trouble) < 0)
        return -1;
    if (move->far_tunnel.path && strcmp(move->far_tunnel.socket, move->tunnel.socket) != 0)
        return trouble_set(
            trouble, STATUS_FAILED,
            "libvirt wants one path for both hosts, but it is %s here and %s at %s. Has one of the "
            "brokers been started with --runtime-dir=?",
            move->tunnel.socket, move->far_tunnel.socket, move->host);
    if (a->ssh && (peers_new(&move->tunnel, &move->far_tunnel, (unsigned)a->multifd + PEERS_MORE,
                             &move->peers, trouble) < 0 ||
                   peers_supply(move->peers, trouble) < 0))
        return -1;
    return tunnel_wait_connected(&move->tunnel, trouble);
}

/* That of a post-copy which is to be resumed, where both ends still have it. 1: they do, 0, or -1. */
static int find_tunnel(struct move *move, struct trouble *trouble)
{
    uid_t uid = move->source.uid;
    int near, far;

    domain_uid(move->near.libvirt, move->domain, &uid);
    near = tunnel_find(&move->source, move->vm, "outgoing", uid, &move->tunnel, trouble);
    far = near < 0
              ? -1
              : tunnel_find(&move->destination, move->far_name, "incoming", uid, &move->far_tunnel, trouble);
    if (far < 0)
        return -1;
    move->found = near > 0 && far > 0 && strcmp(tunnel_id(&move->tunnel), tunnel_id(&move->far_tunnel)) == 0;
    if (move->found)
        return 1;
    tunnel_cancel(&move->tunnel);
    tunnel_clear(&move->tunnel);
    tunnel_cancel(&move->far_tunnel);
    tunnel_clear(&move->far_tunnel);
    return 0;
}

/* ---- libvirt's own calls ---- */

static bool give_to_broker(int fd, void *userdata)
{
    return libvirt_supply(userdata, fd, NULL) >= 0;
}

/* Reads the line that follows the greeting: where the door at the other host is. */
static int read_path(struct remote *remote, char *ret, size_t size, struct trouble *trouble)
{
    _cleanup_fd_ int fd = remote_take_fd(remote);
    struct pollfd p = {.fd = fd, .events = POLLIN};
    size_t n = 0;

    while (n < size - 1 && poll(&p, 1, 10000) > 0 && read(fd, ret + n, 1) == 1 && ret[n] != '\n')
        n++;
    ret[n] = '\0';
    /* The far end lives for as long as this is open: it is kept, and closed with the program. */
    fd_steal(&fd);
    return ret[0] == '/'
               ? 0
               : trouble_set(trouble, STATUS_FAILED, "There is no socket for libvirt at the source.");
}

static int open_door(struct move *move, struct trouble *trouble)
{
    const char *const what[] = {"libvirt-out", move->tunnel.path, NULL};
    char path[128];

    if (!move->source.host) {
        if (door_open(move->ctl, give_to_broker, &move->tunnel, &move->door, trouble) < 0)
            return -1;
        door_uri(move->door, move->far_uri);
        return 0;
    }
    if (remote_open(move->ctl, move->source.host, false, what, &move->door_there, trouble) < 0 ||
        read_path(move->door_there, path, sizeof(path), trouble) < 0)
        return -1;
    door_uri_of(move->ctl, path, move->far_uri);
    return 0;
}

/* A connection to the destination's libvirtd, which its caller's process has opened and stays for. */
static int supply_there(struct move *move, struct trouble *trouble)
{
    _cleanup_fd_ int fd = -1;

    if (!move->far_tunnel.path)
        return 0; /* 'receive --libvirt' does it */
    if (move->supplier)
        return remote_finish(move->supplier, trouble);
    fd = libvirt_connect(move->ctl, trouble);
    return fd < 0 ? -1 : libvirt_supply(&move->far_tunnel, fd, trouble);
}

int way_open(struct move *move, const char *ticket, struct trouble *trouble)
{
    int r = move->ctl->arguments.resume && !ticket ? find_tunnel(move, trouble) : 0;

    if (r == 0)
        r = make_tunnel(move, ticket, trouble);
    if (r >= 0 && move->p2p) {
        r = open_door(move, trouble);
        if (r >= 0)
            r = supply_there(move, trouble);
    }
    return r < 0 ? -1 : 0;
}

void way_look_far(struct move *move)
{
    _cleanup_json_ json_object *record = NULL;

    if (!move->far_news.came)
        return;
    move->far_news.came = false;
    move->far_broken = tunnel_read(&move->far_tunnel, &record, NULL) >= 0 &&
                       strcmp(record_text(record, "Result"), "failed") == 0;
}

void way_undo(struct move *move)
{
    if (move->found)
        return;
    tunnel_cancel(&move->tunnel);
    tunnel_cancel(&move->far_tunnel);
}
