/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/carrier/aead.h"

#include <assert.h>
#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>

/* Set by init() alone, before there are threads. */
static EVP_CIPHER *ciphers[AEAD_CIPHERS_];

/* A library context of our own: the system's openssl.cnf, which can load engines and modules, is not read. */
static int init(void)
{
    static const char *const names[] = {
        [AEAD_AES_128_GCM] = "AES-128-GCM",
        [AEAD_CHACHA20_POLY1305] = "ChaCha20-Poly1305",
    };
    OSSL_LIB_CTX *context;

    if (ciphers[0])
        return 0;
    if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, NULL) != 1)
        return -EIO;
    context = OSSL_LIB_CTX_new();
    for (size_t i = 0; context && i < AEAD_CIPHERS_; i++)
        ciphers[i] = EVP_CIPHER_fetch(context, names[i], NULL);
    for (size_t i = 0; i < AEAD_CIPHERS_; i++)
        if (!ciphers[i])
            return -EIO;
    return 0;
}

static void *new_key(enum aead_cipher cipher, const uint8_t *key)
{
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();

    /* For both directions; each call says which, and gives the nonce. */
    if (context && EVP_CipherInit_ex2(context, ciphers[cipher], key, NULL, 1, NULL) == 1)
        return context;
    EVP_CIPHER_CTX_free(context);
    return NULL;
}

static void free_key(void *key)
{
    EVP_CIPHER_CTX_free(key);
}

static int seal(void *key, const uint8_t nonce[static AEAD_NONCE], const uint8_t aside[static AEAD_ASIDE],
                const uint8_t *plain, size_t size, uint8_t last, uint8_t *out)
{
    uint8_t *tag = out + size + 1;
    int n;

    return EVP_EncryptInit_ex2(key, NULL, NULL, nonce, NULL) == 1 &&
                   EVP_EncryptUpdate(key, NULL, &n, aside, (int)AEAD_ASIDE) == 1 &&
                   EVP_EncryptUpdate(key, out, &n, plain, (int)size) == 1 && n == (int)size &&
                   EVP_EncryptUpdate(key, out + size, &n, &last, 1) == 1 && n == 1 &&
                   EVP_EncryptFinal_ex(key, tag, &n) == 1 &&
                   EVP_CIPHER_CTX_ctrl(key, EVP_CTRL_AEAD_GET_TAG, (int)AEAD_TAG, tag) == 1
               ? 0
               : -EIO;
}

static int unseal(void *key, const uint8_t nonce[static AEAD_NONCE], const uint8_t aside[static AEAD_ASIDE],
                  const uint8_t *sealed, size_t size, uint8_t *out)
{
    int body = (int)(size - AEAD_TAG), n;
    uint8_t *tag = (uint8_t *)(uintptr_t)(sealed + body);

    assert(size >= AEAD_TAG);
    return EVP_DecryptInit_ex2(key, NULL, NULL, nonce, NULL) == 1 &&
                   EVP_CIPHER_CTX_ctrl(key, EVP_CTRL_AEAD_SET_TAG, (int)AEAD_TAG, tag) == 1 &&
                   EVP_DecryptUpdate(key, NULL, &n, aside, (int)AEAD_ASIDE) == 1 &&
                   EVP_DecryptUpdate(key, out, &n, sealed, body) == 1 && n == body &&
                   EVP_DecryptFinal_ex(key, out + body, &n) == 1
               ? 0
               : -EBADMSG;
}

const struct aead aead_openssl = {
    .name = "OpenSSL",
    .init = init,
    .new_key = new_key,
    .free_key = free_key,
    .seal = seal,
    .open = unseal,
};
