/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/drive/peers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "ctl/ssh/relay.h"

#define MEND_AGAIN (6 * SECOND)

enum { LINKS_MAX = 2 * (256 + 2) };

struct peers {
    struct ctl *ctl;
    const struct tunnel *source, *destination;
    unsigned wanted; /* connections in a set */
    uint64_t tried;
    struct remote *links[LINKS_MAX]; /* the ssh processes of the last set */
    unsigned n_links;
};

static int add_link(struct peers *peers, const struct tunnel *end, int *ret_fd, struct trouble *trouble)
{
    const char *const what[] = {"peer", end->path, NULL};
    struct remote *link;

    if (peers->n_links == LINKS_MAX)
        return trouble_set(trouble, STATUS_FAILED, "There are too many connections over ssh.");
    if (remote_open(peers->ctl, end->side->host, true, what, &link, trouble) < 0)
        return -1;
    peers->links[peers->n_links++] = link;
    *ret_fd = remote_take_fd(link);
    return 0;
}

/* Gives a connected socket to the broker of this end, which must be on this host. Borrows fd. */
static int hand_over(const struct tunnel *end, int fd, struct trouble *trouble)
{
    return side_call(end->side, end->path, MIGRATION_INTERFACE, "AddPeerConnection", NULL, trouble,
                     "Cannot hand a connection to the broker", "h", fd);
}

/* Between two ssh connections. Borrows both. */
static int carry(int a, int b, struct trouble *trouble)
{
    int r = relay_start(a, b);

    return r < 0 ? trouble_set(trouble, STATUS_FAILED, "Cannot start another process: %s.", strerror(-r)) : 0;
}

/* One connection from the source's broker to the destination's. */
static int connect_one(struct peers *peers, struct trouble *trouble)
{
    _cleanup_fd_ int far = -1, near = -1, other = -1;
    int pair[2];

    if (peers->destination->side->host) {
        if (add_link(peers, peers->destination, &far, trouble) < 0)
            return -1;
    } else {
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
            return trouble_set(trouble, STATUS_FAILED, "Cannot make a socket: %s.", strerror(errno));
        far = pair[0];
        other = pair[1];
        if (hand_over(peers->destination, other, trouble) < 0)
            return -1;
    }
    if (!peers->source->side->host)
        return hand_over(peers->source, far, trouble);
    return add_link(peers, peers->source, &near, trouble) < 0 ? -1 : carry(near, far, trouble);
}

int peers_new(const struct tunnel *source, const struct tunnel *destination, unsigned channels,
              struct peers **ret, struct trouble *trouble)
{
    struct peers *peers = calloc(1, sizeof(*peers));

    if (!peers)
        return trouble_no_memory(trouble);
    *peers = (struct peers){
        .ctl = source->side->ctl, .source = source, .destination = destination, .wanted = channels + 1};
    *ret = peers;
    return 0;
}

static void drop_links(struct peers *peers)
{
    while (peers->n_links > 0)
        remote_free(peers->links[--peers->n_links]);
}

int peers_supply(struct peers *peers, struct trouble *trouble)
{
    /* The old ssh processes first: the tunnel is interrupted, and does not use their connections any more. */
    peers->tried = ctl_now();
    drop_links(peers);
    for (unsigned i = 0; i < peers->wanted; i++)
        if (connect_one(peers, trouble) < 0)
            return -1;
    return 0;
}

void peers_mend(struct peers *peers)
{
    if (ctl_now() < peers->tried + MEND_AGAIN)
        return;
    peers_supply(peers, NULL); /* while the network is away it fails, and is tried again */
    peers->tried = ctl_now();
}

void peers_leave(struct peers *peers)
{
    while (peers->n_links > 0)
        remote_leave(peers->links[--peers->n_links]);
    free(peers);
}

void peers_free(struct peers *peers)
{
    if (!peers)
        return;
    drop_links(peers);
    free(peers);
}
