/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * How two helpers prove to each other that they hold the same key on a `plain` connection, where nothing is
 * encrypted: an HMAC-SHA-256 (RFC 2104) by each over both nonces.
 *
 *     connecting → accepting   0x01, zero[31], nonce[32]
 *     accepting → connecting   0x02, zero[31], nonce[32], HMAC(key, "server" ‖ id ‖ kind ‖ nonces)
 *     connecting → accepting   HMAC(key, "client" ‖ id ‖ kind ‖ nonces)
 *
 * Pure: bytes in, bytes out and a verdict; randomness from GnuTLS.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "helper/protocol/greeting.h"
#include "helper/protocol/key.h"

#define PROOF_HELLO 64
#define PROOF_MAC   32
#define PROOF_MAX   (PROOF_HELLO + PROOF_MAC)

struct proof {
    bool connecting;
    uint8_t key[KEY_SIZE];
    struct preamble preamble;
    uint8_t nonces[2][32];  /* [0] the connecting side's */
    uint8_t out[PROOF_MAX]; /* what is to be sent now */
    size_t n_out;
    size_t n_sent;         /* how much of it went out; the caller counts */
    uint8_t in[PROOF_MAX]; /* what has come of the message that is awaited */
    size_t n_in;
    size_t n_need; /* its size; 0 when nothing more is awaited */
};

/* 0 or a negative errno (no randomness). Copies key. For the connecting side out is filled at once. */
int proof_init(struct proof *proof, bool connecting, const struct preamble *preamble,
               const uint8_t key[static KEY_SIZE]);

/*
 * Takes the bytes that came, never more than n_need − n_in of them. MORE while the message is not whole or
 * another is awaited; OK when the other side has proved itself (out may still hold the last message to
 * send); BAD when it has not.
 */
enum verdict proof_feed(struct proof *proof, const uint8_t *data, size_t size);

/* After OK: a secret that only the two ends of this connection know, and who holds the key and has listened:
 * the nonces go in clear. */
int proof_export(const struct proof *proof, uint8_t ret[static KEY_SIZE]);

/* Overwrites the key. */
void proof_clear(struct proof *proof);
