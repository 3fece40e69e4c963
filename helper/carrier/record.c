/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/carrier/record.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <string.h>

enum {
    TYPE_DATA = 23,
    VERSION = 3, /* both bytes of it: "TLS 1.2", as all say who speak 1.3 */
};

int record_key_set(struct record_key *key, const struct aead *aead, enum aead_cipher cipher,
                   const uint8_t *secret, const uint8_t iv[static AEAD_NONCE], uint64_t number)
{
    record_key_clear(key);
    key->key = aead->new_key(cipher, secret);
    if (!key->key)
        return -ENOMEM;
    key->aead = aead;
    key->number = number;
    memcpy(key->iv, iv, AEAD_NONCE);
    return 0;
}

void record_key_clear(struct record_key *key)
{
    if (key->key)
        key->aead->free_key(key->key);
    explicit_bzero(key, sizeof(*key));
}

/* RFC 8446, 5.3 */
static void nonce_of(const struct record_key *key, uint8_t ret[static AEAD_NONCE])
{
    uint64_t number = htobe64(key->number);
    uint8_t *end = ret + AEAD_NONCE - sizeof(number);

    memcpy(ret, key->iv, AEAD_NONCE);
    for (size_t i = 0; i < sizeof(number); i++)
        end[i] ^= ((const uint8_t *)&number)[i];
}

int record_seal(struct record_key *key, const uint8_t *plain, size_t size, uint8_t *out)
{
    size_t body = size + 1 + AEAD_TAG;
    uint8_t nonce[AEAD_NONCE];

    assert(size > 0 && size <= RECORD_PLAIN_MAX);
    if (!key->key || key->number >= RECORDS_MAX)
        return -ENOKEY;
    out[0] = TYPE_DATA;
    out[1] = out[2] = VERSION;
    out[3] = (uint8_t)(body >> 8);
    out[4] = (uint8_t)body;
    nonce_of(key, nonce);
    key->number++; /* before all that can fail: a number serves once */
    return key->aead->seal(key->key, nonce, out, plain, size, TYPE_DATA, out + AEAD_ASIDE);
}

enum record_verdict record_look(const uint8_t *data, size_t size, size_t *ret_size)
{
    static const uint8_t begin[] = {TYPE_DATA, VERSION, VERSION};
    size_t whole;

    if (memcmp(data, begin, size < sizeof(begin) ? size : sizeof(begin)) != 0)
        return RECORD_BAD;
    if (size < AEAD_ASIDE)
        return RECORD_CUT;
    whole = AEAD_ASIDE + (size_t)(data[3] << 8 | data[4]);
    /* A record without a byte in it is no use, and would make work. */
    if (whole <= RECORD_OVERHEAD || whole > RECORD_SIZE_MAX)
        return RECORD_BAD;
    *ret_size = whole;
    return size < whole ? RECORD_CUT : RECORD_DATA;
}

enum record_verdict record_open(struct record_key *key, const uint8_t *record, size_t size,
                                uint8_t *ret_plain)
{
    uint8_t nonce[AEAD_NONCE], type;

    assert(size > RECORD_OVERHEAD && size <= RECORD_SIZE_MAX);
    if (!key->key)
        return RECORD_BAD;
    nonce_of(key, nonce);
    if (key->aead->open(key->key, nonce, record, record + AEAD_ASIDE, size - AEAD_ASIDE, ret_plain) < 0)
        return RECORD_BAD;
    type = ret_plain[size - RECORD_OVERHEAD];
    if (type != TYPE_DATA) /* 0 is padding, which no vmferry sends, and which would hide where the data end */
        return type == 0 ? RECORD_BAD : RECORD_OTHER;
    key->number++;
    return RECORD_DATA;
}
