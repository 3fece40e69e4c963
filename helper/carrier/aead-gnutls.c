/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/carrier/aead.h"

#include <assert.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

static int init(void)
{
    return gnutls_global_init() < 0 ? -EIO : 0;
}

static void *new_key(enum aead_cipher cipher, const uint8_t *key)
{
    static const gnutls_cipher_algorithm_t ids[] = {
        [AEAD_AES_128_GCM] = GNUTLS_CIPHER_AES_128_GCM,
        [AEAD_CHACHA20_POLY1305] = GNUTLS_CIPHER_CHACHA20_POLY1305,
    };
    const gnutls_datum_t datum = {(uint8_t *)(uintptr_t)key, (unsigned)aead_key_size(cipher)};
    gnutls_aead_cipher_hd_t handle;

    return gnutls_aead_cipher_init(&handle, ids[cipher], &datum) < 0 ? NULL : handle;
}

static void free_key(void *key)
{
    gnutls_aead_cipher_deinit(key);
}

static int seal(void *key, const uint8_t nonce[static AEAD_NONCE], const uint8_t aside[static AEAD_ASIDE],
                const uint8_t *plain, size_t size, uint8_t last, uint8_t *out)
{
    const giovec_t auth = {(uint8_t *)(uintptr_t)aside, AEAD_ASIDE};
    const giovec_t pieces[] = {{(uint8_t *)(uintptr_t)plain, size}, {&last, 1}};
    size_t sealed = size + 1 + AEAD_TAG;

    return gnutls_aead_cipher_encryptv(key, nonce, AEAD_NONCE, &auth, 1, AEAD_TAG, pieces, 2, out, &sealed) <
                   0
               ? -EIO
               : 0;
}

static int unseal(void *key, const uint8_t nonce[static AEAD_NONCE], const uint8_t aside[static AEAD_ASIDE],
                  const uint8_t *sealed, size_t size, uint8_t *out)
{
    size_t got = size - AEAD_TAG;

    assert(size >= AEAD_TAG);
    return gnutls_aead_cipher_decrypt(key, nonce, AEAD_NONCE, aside, AEAD_ASIDE, AEAD_TAG, sealed, size, out,
                                      &got) < 0
               ? -EBADMSG
               : 0;
}

const struct aead aead_gnutls = {
    .name = "GnuTLS",
    .init = init,
    .new_key = new_key,
    .free_key = free_key,
    .seal = seal,
    .open = unseal,
};
