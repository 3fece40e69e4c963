/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/carrier/aead.h"

#include <assert.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <intel-ipsec-mb.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 }; /* the library's code loads expanded keys by whole vectors */

struct key {
    _Alignas(ALIGNMENT) struct gcm_key_data expanded;
    struct gcm_context_data context; /* of one record */
};

/* The library's code for this CPU, of AES-128-GCM. Set by init() alone, before there are threads. */
static struct {
    aes_gcm_pre_t expand;
    aes_gcm_init_t begin;
    aes_gcm_enc_dec_update_t encrypt, decrypt;
    aes_gcm_enc_dec_finalize_t encrypted, decrypted;
} gcm;

/* A manager of jobs knows the code for this CPU, which it has tested. Jobs need that manager, calls do not.
 */
static int init(void)
{
    const uint64_t needs = IMB_FEATURE_AESNI | IMB_FEATURE_PCLMULQDQ;
    IMB_MGR *manager;
    int r = -ENOTSUP;

    if (gcm.expand)
        return 0;
    manager = alloc_mb_mgr(0);
    if (!manager)
        return -ENOMEM;
    init_mb_mgr_auto(manager, NULL);
    /* Without these instructions it emulates them. */
    if (imb_get_errno(manager) == 0 && (manager->features & needs) == needs) {
        gcm.expand = manager->gcm128_pre;
        gcm.begin = manager->gcm128_init;
        gcm.encrypt = manager->gcm128_enc_update;
        gcm.encrypted = manager->gcm128_enc_finalize;
        gcm.decrypt = manager->gcm128_dec_update;
        gcm.decrypted = manager->gcm128_dec_finalize;
        r = 0;
    }
    free_mb_mgr(manager);
    return r;
}

static void *new_key(enum aead_cipher cipher, const uint8_t *key)
{
    struct key *new;

    if (cipher != AEAD_AES_128_GCM || !gcm.expand)
        return NULL;
    new = aligned_alloc(ALIGNMENT, sizeof(*new));
    if (new)
        gcm.expand(key, &new->expanded);
    return new;
}

static void free_key(void *key)
{
    explicit_bzero(key, sizeof(struct key));
    free(key);
}

static int seal(void *key, const uint8_t nonce[static AEAD_NONCE], const uint8_t aside[static AEAD_ASIDE],
                const uint8_t *plain, size_t size, uint8_t last, uint8_t *out)
{
    struct key *k = key;

    gcm.begin(&k->expanded, &k->context, nonce, aside, AEAD_ASIDE);
    gcm.encrypt(&k->expanded, &k->context, out, plain, size);
    gcm.encrypt(&k->expanded, &k->context, out + size, &last, 1);
    gcm.encrypted(&k->expanded, &k->context, out + size + 1, AEAD_TAG);
    return 0;
}

static int unseal(void *key, const uint8_t nonce[static AEAD_NONCE], const uint8_t aside[static AEAD_ASIDE],
                  const uint8_t *sealed, size_t size, uint8_t *out)
{
    size_t body = size - AEAD_TAG;
    uint8_t tag[AEAD_TAG];
    struct key *k = key;

    assert(size >= AEAD_TAG);
    gcm.begin(&k->expanded, &k->context, nonce, aside, AEAD_ASIDE);
    gcm.decrypt(&k->expanded, &k->context, out, sealed, body);
    gcm.decrypted(&k->expanded, &k->context, tag, sizeof(tag));
    return gnutls_memcmp(tag, sealed + body, sizeof(tag)) == 0 ? 0 : -EBADMSG;
}

const struct aead aead_ipsec_mb = {
    .name = "IPsec-MB",
    .init = init,
    .new_key = new_key,
    .free_key = free_key,
    .seal = seal,
    .open = unseal,
};
