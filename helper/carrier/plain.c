/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/carrier/plain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "helper/carrier/raw.h"
#include "helper/carrier/socket.h"
#include "helper/protocol/proof.h"

struct carrier_plain {
    struct carrier carrier; /* first: the two are cast into each other */
    struct proof *proof;    /* owned; only during the handshake: it is freed with the key in it */
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
        r = handshake_hear(&carrier->handshake, buf, (size_t)n);
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
    .recv = raw_recv,
    .send = raw_send,
    .flush = raw_flush,
    .holds_input = raw_holds_nothing,
    .holds_output = raw_holds_nothing,
    .export_key = plain_export_key,
    .free = plain_free,
    .splices = true,
};

int carrier_plain_new(int fd, bool connecting, const struct preamble *preamble,
                      const uint8_t key[static KEY_SIZE], struct carrier **ret)
{
    struct carrier_plain *plain = calloc(1, sizeof(*plain));
    int r = -ENOMEM;

    if (!plain)
        return r;
    plain->carrier = (struct carrier){.ops = &plain_ops, .fd = fd, .handshake = {.connecting = connecting}};
    plain->proof = calloc(1, sizeof(*plain->proof));
    if (plain->proof)
        r = proof_init(plain->proof, connecting, preamble, key);
    if (r < 0) {
        plain_free(&plain->carrier);
        return r;
    }
    *ret = &plain->carrier;
    return 0;
}
