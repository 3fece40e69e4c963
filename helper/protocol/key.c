/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/protocol/key.h"

#include <endian.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stddef.h>
#include <string.h>

int key_derive(const uint8_t secret[static KEY_SIZE], uint64_t id, const char *label,
               uint8_t ret[static KEY_SIZE])
{
    uint64_t salt = htole64(id);
    uint8_t ikm[KEY_SIZE], prk[KEY_SIZE], info[64]; /* copies: gnutls_datum_t knows no const */
    size_t n_info = strlen(label);
    gnutls_datum_t secret_datum = {ikm, sizeof(ikm)};
    gnutls_datum_t salt_datum = {(void *)&salt, sizeof(salt)};
    gnutls_datum_t label_datum = {info, (unsigned)n_info};
    gnutls_datum_t prk_datum = {prk, sizeof(prk)};
    int r;

    if (n_info > sizeof(info))
        return -EINVAL;
    memcpy(ikm, secret, sizeof(ikm));
    memcpy(info, label, n_info);
    r = gnutls_hkdf_extract(GNUTLS_MAC_SHA256, &secret_datum, &salt_datum, prk);
    if (r >= 0)
        r = gnutls_hkdf_expand(GNUTLS_MAC_SHA256, &prk_datum, &label_datum, ret, KEY_SIZE);
    explicit_bzero(ikm, sizeof(ikm));
    explicit_bzero(prk, sizeof(prk));
    return r < 0 ? -EIO : 0;
}
