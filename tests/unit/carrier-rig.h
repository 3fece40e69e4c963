/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Two ends of a connection, made one by one or as a pair that has shaken hands. */

#include "test-util.h"

#include "aead-rig.h"

#include "helper/carrier/plain.h"
#include "helper/carrier/raw.h"
#include "helper/carrier/tls.h"
#include "helper/protocol/proof.h"

enum kind {
    PLAIN,
    TLS,
};

static const struct preamble preamble = {PEER_CONTROL, 0x0123456789abcdef};
static const uint8_t key[KEY_SIZE] = "a key of thirty-two bytes ......";

static inline struct carrier *make(enum kind kind, int fd, bool connecting, const struct preamble *p,
                                   const uint8_t *k)
{
    struct carrier *carrier = NULL;
    int r = kind == PLAIN ? carrier_plain_new(fd, connecting, p, k, &carrier)
                          : carrier_tls_new(fd, connecting, p, k, CARRIER_TLS_BUFFER_MIN,
                                            aeads_of_side(connecting), &carrier);

    assert_int_equal(r, 0);
    return carrier;
}

/* Both ends, each driven when its socket is ready, until each has come to something; closes what failed. */
static inline void shake(struct carrier **a, struct carrier **b, int *ret_a, int *ret_b)
{
    struct carrier **ends[] = {a, b};
    int results[] = {-EAGAIN, -EAGAIN};

    for (int rounds = 0; rounds < 2000 && (results[0] == -EAGAIN || results[1] == -EAGAIN); rounds++) {
        for (int i = 0; i < 2; i++) {
            if (results[i] != -EAGAIN)
                continue;
            results[i] = (*ends[i])->ops->handshake(*ends[i]);
            if (results[i] < 0 && results[i] != -EAGAIN)
                *ends[i] = carrier_free(*ends[i]);
        }
        for (int i = 0; i < 2; i++)
            if (*ends[i] && results[i] == 0)
                assert_true((*ends[i])->ops->flush(*ends[i]) <= 0);
    }
    *ret_a = results[0];
    *ret_b = results[1];
}

/* A pair that has shaken hands. */
static inline void make_pair(enum kind kind, int buffer, struct carrier **ret_a, struct carrier **ret_b)
{
    int pair[2], a, b;

    test_pair(SOCK_STREAM, buffer, pair);
    *ret_a = make(kind, pair[0], true, &preamble, key);
    *ret_b = make(kind, pair[1], false, &preamble, key);
    shake(ret_a, ret_b, &a, &b);
    assert_int_equal(a, 0);
    assert_int_equal(b, 0);
}

static inline void ring_put(struct ring *ring, uint64_t offset, size_t size)
{
    uint8_t *data = malloc(size);

    test_fill(data, size, offset);
    assert_int_equal(ring_append(ring, data, size), 0);
    free(data);
}
