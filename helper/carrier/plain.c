/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/carrier/carrier.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/cleanup.h"

struct carrier_plain {
    struct carrier carrier; /* first: the two are cast into each other */
    struct proof *proof;    /* only while a peer connection shakes hands; it is freed with the key in it */
    bool proved;
    uint8_t exported[KEY_SIZE];
};

static struct carrier_plain *plain_of(struct carrier *carrier)
{
    return (struct carrier_plain *)carrier;
}

/* Sends what the proof has to say: 0 or a negative errno. */
static int proof_send(struct carrier_plain *plain)
{
    struct proof *proof = plain->proof;

    while (proof->n_sent < proof->n_out) {
        struct iovec iov = {proof->out + proof->n_sent, proof->n_out - proof->n_sent};
        ssize_t n = socket_send(plain->carrier.fd, &iov, 1);

        if (n < 0)
            return (int)n;
        proof->n_sent += (size_t)n;
    }
    return 0;
}

static int plain_handshake(struct carrier *carrier)
{
    struct carrier_plain *plain = plain_of(carrier);
    struct proof *proof = plain->proof;
    int r;

    for (;;) {
        uint8_t buf[PROOF_MAX];
        enum verdict verdict;
        ssize_t n;

        r = proof_send(plain);
        if (r < 0)
            return r;
        if (plain->proved)
            break;
        /* Never more than the message that is awaited: the stream's bytes follow it. */
        struct iovec iov = {buf, proof->n_need - proof->n_in};
        n = socket_recv(carrier->fd, &iov, 1);
        if (n < 0)
            return (int)n;
        if (n == 0)
            return -ECONNRESET;
        r = carrier_hear(carrier, buf, (size_t)n);
        if (r < 0)
            return r;
        verdict = proof_feed(proof, buf, (size_t)n);
        if (verdict == VERDICT_BAD)
            return -EKEYREJECTED;
        if (verdict == VERDICT_OK)
            plain->proved = true;
    }
    r = proof_export(proof, plain->exported);
    proof_clear(proof);
    free(proof);
    plain->proof = NULL;
    return r;
}

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

static ssize_t plain_recv(struct carrier *carrier, struct ring *ring, size_t max)
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

static ssize_t plain_send(struct carrier *carrier, struct ring *ring)
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

static int plain_flush(struct carrier *carrier)
{
    (void)carrier;
    return 0;
}

static bool plain_holds_nothing(const struct carrier *carrier)
{
    (void)carrier;
    return false;
}

static int plain_export_key(struct carrier *carrier, uint8_t ret[static KEY_SIZE])
{
    for (size_t i = 0; i < KEY_SIZE; i++)
        ret[i] = plain_of(carrier)->exported[i];
    return 0;
}

static void plain_free(struct carrier *carrier)
{
    struct carrier_plain *plain = plain_of(carrier);

    if (plain->proof)
        proof_clear(plain->proof);
    free(plain->proof);
    explicit_bzero(plain->exported, sizeof(plain->exported));
    free(plain);
}

static const struct carrier_ops plain_ops = {
    .handshake = plain_handshake,
    .recv = plain_recv,
    .send = plain_send,
    .flush = plain_flush,
    .holds_input = plain_holds_nothing,
    .holds_output = plain_holds_nothing,
    .export_key = plain_export_key,
    .free = plain_free,
    .splices = true,
};

int carrier_plain_new(int fd, bool connecting, const struct preamble *preamble, const uint8_t *proof_key,
                      struct carrier **ret)
{
    struct carrier_plain *plain = calloc(1, sizeof(*plain));
    int r;

    if (!plain)
        return -ENOMEM;
    plain->carrier = (struct carrier){.ops = &plain_ops, .fd = fd, .connecting = connecting};
    if (proof_key) {
        plain->proof = calloc(1, sizeof(*plain->proof));
        r = plain->proof ? proof_init(plain->proof, connecting, preamble, proof_key) : -ENOMEM;
        if (r < 0) {
            plain_free(&plain->carrier);
            return r;
        }
    }
    *ret = &plain->carrier;
    return 0;
}
