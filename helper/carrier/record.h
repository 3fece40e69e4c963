/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Records of application data in TLS 1.3 (RFC 8446, section 5). Bytes in, bytes out; does no I/O. A
 * connection has one struct record_key for each direction. The key and the number make the nonce, which must
 * never serve twice: only record_seal() moves the number of a key that seals.
 */

#include <stdint.h>

#include "helper/carrier/aead.h"

#define RECORD_PLAIN_MAX ((size_t)16384)
#define RECORD_OVERHEAD  (AEAD_ASIDE + 1 /* type */ + AEAD_TAG)
#define RECORD_SIZE_MAX  (RECORD_PLAIN_MAX + RECORD_OVERHEAD)
#define RECORDS_MAX      ((uint64_t)1 << 24) /* that one key seals; RFC 8446, 5.5, allows AES-GCM 2^24.5 */

struct record_key {
    const struct aead *aead; /* borrowed */
    void *key;               /* owned: aead's; NULL: none */
    uint8_t iv[AEAD_NONCE];
    uint64_t number; /* of the next record */
};

enum record_verdict {
    RECORD_DATA,
    RECORD_CUT,   /* the rest is still to come */
    RECORD_OTHER, /* authentic, and no application data */
    RECORD_BAD,   /* ends the connection */
};

/* In place of the key that was there, if one was. Borrows aead; copies secret, which has aead_key_size()
 * bytes. 0, or -ENOMEM, and the old key is gone. */
int record_key_set(struct record_key *key, const struct aead *aead, enum aead_cipher cipher,
                   const uint8_t *secret, const uint8_t iv[static AEAD_NONCE], uint64_t number);

/* Overwrites it; safe on a zeroed one. */
void record_key_clear(struct record_key *key);

/*
 * Makes a record of 1…RECORD_PLAIN_MAX bytes, of size + RECORD_OVERHEAD, and moves the number on. 0; -ENOKEY
 * without a key, or when it has sealed RECORDS_MAX; or -EIO.
 */
int record_seal(struct record_key *key, const uint8_t *plain, size_t size, uint8_t *out);

/* Is there a whole record? RECORD_DATA, and its size, whatever turns out to be in it; RECORD_CUT; or
 * RECORD_BAD. */
enum record_verdict record_look(const uint8_t *data, size_t size, size_t *ret_size);

/*
 * Opens a record of this size, which record_look() gave. RECORD_DATA: the first size − RECORD_OVERHEAD bytes
 * of ret_plain are its data, and the number has moved on. RECORD_OTHER, RECORD_BAD: nothing has changed but
 * what is in ret_plain. Writes size − RECORD_OVERHEAD + 1 bytes there in any case.
 */
enum record_verdict record_open(struct record_key *key, const uint8_t *record, size_t size,
                                uint8_t *ret_plain);
