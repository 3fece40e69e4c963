/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/carrier/raw.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "helper/carrier/socket.h"

static ssize_t splice_some(int from, int to, size_t max)
{
    ssize_t n;

    do {
        n = splice(from, NULL, to, NULL, max, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* Before a byte out of band (tcp(7), MSG_OOB) splice stands still for ever, and the poll goes on to say that
 * there is something. No vmferry sends one. */
enum { DEAF_MAX = 64 };

/* Between a socket and a pipe of ours: no byte comes into this process' memory. */
static ssize_t splice_recv(struct carrier *carrier, struct ring *ring, size_t max)
{
    ssize_t n;

    n = splice_some(carrier->fd, ring->pipe, max < CARRIER_BATCH ? max : CARRIER_BATCH);
    if (n > 0) {
        ring_commit(ring, (size_t)n);
        carrier->deaf = 0;
    } else if (n == -EAGAIN && ring_unsent(ring) > 0) {
        ring->pipe_full = true; /* or the socket is empty: known when it is drained */
    } else if (n == -EAGAIN && carrier->polled && ++carrier->deaf == DEAF_MAX) {
        return -EPROTO;
    } else if (n == 0) {
        /* Asked twice, for splice(2) also says so where it had no memory, and an end is final. */
        char byte;

        n = recv(carrier->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
        n = n > 0 ? -EAGAIN : n < 0 ? -errno : 0;
    }
    carrier->polled = false;
    return n;
}

static ssize_t splice_send(struct carrier *carrier, struct ring *ring)
{
    ssize_t n = splice_some(ring->pipe, carrier->fd, ring_unsent(ring));

    if (n > 0)
        ring_advance(ring, (size_t)n);
    return n;
}

ssize_t raw_recv(struct carrier *carrier, struct ring *ring, size_t max)
{
    struct iovec iov[RING_IOV_MAX];
    ssize_t n;
    int n_iov;

    if (ring->pipe >= 0)
        return splice_recv(carrier, ring, max);
    n_iov = ring_reserve(ring, max < CARRIER_BATCH ? max : CARRIER_BATCH, iov);
    if (n_iov <= 0)
        return n_iov < 0 ? n_iov : -EAGAIN;
    n = socket_recv(carrier->fd, iov, n_iov);
    if (n > 0)
        ring_commit(ring, (size_t)n);
    return n;
}

ssize_t raw_send(struct carrier *carrier, struct ring *ring)
{
    struct iovec iov[RING_IOV_MAX];
    ssize_t n;
    int n_iov;

    if (ring->pipe >= 0)
        return splice_send(carrier, ring);
    n_iov = ring_peek(ring, CARRIER_BATCH, iov);
    if (n_iov == 0)
        return -EAGAIN;
    n = socket_send(carrier->fd, iov, n_iov);
    if (n > 0)
        ring_advance(ring, (size_t)n);
    return n;
}

int raw_flush(struct carrier *carrier)
{
    return 0;
}

bool raw_holds_nothing(const struct carrier *carrier)
{
    return false;
}

static void raw_free(struct carrier *carrier)
{
    free(carrier);
}

static const struct carrier_ops raw_ops = {
    .recv = raw_recv,
    .send = raw_send,
    .flush = raw_flush,
    .holds_input = raw_holds_nothing,
    .holds_output = raw_holds_nothing,
    .free = raw_free,
    .splices = true,
};

int carrier_raw_new(int fd, struct carrier **ret)
{
    struct carrier *carrier = calloc(1, sizeof(*carrier));

    if (!carrier)
        return -ENOMEM;
    *carrier = (struct carrier){.ops = &raw_ops, .fd = fd};
    *ret = carrier;
    return 0;
}
