/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/protocol/proof.h"

#include <endian.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>

enum { HELLO_CONNECTING = 1, HELLO_ACCEPTING = 2, NONCE_AT = 32 };

static int hmac(const uint8_t key[static KEY_SIZE], const void *data, size_t size,
                uint8_t ret[static PROOF_MAC])
{
    return gnutls_hmac_fast(GNUTLS_MAC_SHA256, key, KEY_SIZE, data, size, ret) < 0 ? -EIO : 0;
}

static int mac_of(const struct proof *proof, const char label[static 6], uint8_t ret[static PROOF_MAC])
{
    uint8_t text[6 + 8 + 4 + sizeof(proof->nonces)];
    uint64_t id = htole64(proof->preamble.id);
    uint32_t kind = htole32((uint32_t)proof->preamble.kind);

    memcpy(text, label, 6);
    memcpy(text + 6, &id, sizeof(id));
    memcpy(text + 14, &kind, sizeof(kind));
    memcpy(text + 18, proof->nonces, sizeof(proof->nonces));
    return hmac(proof->key, text, sizeof(text), ret);
}

static void say_hello(struct proof *proof, uint8_t type, const uint8_t nonce[static 32])
{
    memset(proof->out, 0, NONCE_AT);
    proof->out[0] = type;
    memcpy(proof->out + NONCE_AT, nonce, 32);
    proof->n_out = PROOF_HELLO;
    proof->n_sent = 0;
}

int proof_init(struct proof *proof, bool connecting, const struct preamble *preamble,
               const uint8_t key[static KEY_SIZE])
{
    *proof = (struct proof){.connecting = connecting, .preamble = *preamble};
    memcpy(proof->key, key, KEY_SIZE);
    if (gnutls_rnd(GNUTLS_RND_NONCE, proof->nonces[connecting ? 0 : 1], 32) < 0)
        return -EIO;
    if (connecting)
        say_hello(proof, HELLO_CONNECTING, proof->nonces[0]);
    proof->n_need = connecting ? PROOF_HELLO + PROOF_MAC : PROOF_HELLO;
    return 0;
}

static bool hello_ok(const struct proof *proof, uint8_t type)
{
    static const uint8_t zero[NONCE_AT - 1];

    return proof->in[0] == type && memcmp(proof->in + 1, zero, sizeof(zero)) == 0;
}

/* The accepting side has the other's nonce: answers with its own and its proof. */
static enum verdict on_client_hello(struct proof *proof)
{
    if (!hello_ok(proof, HELLO_CONNECTING))
        return VERDICT_BAD;
    memcpy(proof->nonces[0], proof->in + NONCE_AT, 32);
    say_hello(proof, HELLO_ACCEPTING, proof->nonces[1]);
    if (mac_of(proof, "server", proof->out + PROOF_HELLO) < 0)
        return VERDICT_BAD;
    proof->n_out = PROOF_HELLO + PROOF_MAC;
    proof->n_in = 0;
    proof->n_need = PROOF_MAC;
    return VERDICT_MORE;
}

static enum verdict on_server_hello(struct proof *proof)
{
    uint8_t want[PROOF_MAC];

    if (!hello_ok(proof, HELLO_ACCEPTING))
        return VERDICT_BAD;
    memcpy(proof->nonces[1], proof->in + NONCE_AT, 32);
    if (mac_of(proof, "server", want) < 0 || gnutls_memcmp(want, proof->in + PROOF_HELLO, PROOF_MAC) != 0)
        return VERDICT_BAD;
    if (mac_of(proof, "client", proof->out) < 0)
        return VERDICT_BAD;
    proof->n_out = PROOF_MAC;
    proof->n_sent = 0;
    return VERDICT_OK;
}

static enum verdict on_client_mac(struct proof *proof)
{
    uint8_t want[PROOF_MAC];

    if (mac_of(proof, "client", want) < 0 || gnutls_memcmp(want, proof->in, PROOF_MAC) != 0)
        return VERDICT_BAD;
    return VERDICT_OK;
}

enum verdict proof_feed(struct proof *proof, const uint8_t *data, size_t size)
{
    enum verdict verdict;

    if (size > proof->n_need - proof->n_in)
        return VERDICT_BAD;
    memcpy(proof->in + proof->n_in, data, size);
    proof->n_in += size;
    if (proof->n_in < proof->n_need)
        return VERDICT_MORE;
    if (proof->connecting)
        verdict = on_server_hello(proof);
    else if (proof->n_need == PROOF_HELLO)
        verdict = on_client_hello(proof);
    else
        verdict = on_client_mac(proof);
    if (verdict != VERDICT_MORE)
        proof->n_need = proof->n_in = 0;
    return verdict;
}

int proof_export(const struct proof *proof, uint8_t ret[static KEY_SIZE])
{
    return mac_of(proof, "export", ret);
}

void proof_clear(struct proof *proof)
{
    explicit_bzero(proof->key, sizeof(proof->key));
}
