/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The ciphers that seal TLS records, as the libraries of the system implement them. Each library is measured
 * once, when the helper starts, and the fastest serves all of its connections.
 */

#include <stddef.h>
#include <stdint.h>

#define AEAD_TAG     ((size_t)16)
#define AEAD_NONCE   ((size_t)12)
#define AEAD_KEY_MAX ((size_t)32)
#define AEAD_ASIDE   ((size_t)5) /* authenticated and not encrypted: the header of a record */

enum aead_cipher {
    AEAD_AES_128_GCM,
    AEAD_CHACHA20_POLY1305,
    AEAD_CIPHERS_,
};

/* One library. A key serves one direction of one connection, in one thread at a time. */
struct aead {
    const char *name;
    /* Before the sandbox: what the library opens, maps and finds out. 0 or a negative errno. */
    int (*init)(void);
    /* Copies the key, which has aead_key_size() bytes; NULL without memory, or where the library does not
     * have the cipher on this machine. free_key() overwrites it. */
    void *(*new_key)(enum aead_cipher cipher, const uint8_t *key);
    void (*free_key)(void *key);
    /* Writes size bytes and one more, encrypted, and the tag to out. 0 or -EIO. */
    int (*seal)(void *key, const uint8_t nonce[static AEAD_NONCE], const uint8_t aside[static AEAD_ASIDE],
                const uint8_t *plain, size_t size, uint8_t last, uint8_t *out);
    /* Writes size − AEAD_TAG bytes to out: 0. Where they are not authentic: -EBADMSG, and what is in out is
     * nothing to look at. */
    int (*open)(void *key, const uint8_t nonce[static AEAD_NONCE], const uint8_t aside[static AEAD_ASIDE],
                const uint8_t *sealed, size_t size, uint8_t *out);
};

extern const struct aead aead_gnutls;
extern const struct aead aead_openssl;  /* only in builds with it */
extern const struct aead aead_ipsec_mb; /* AES-128-GCM alone; only in builds with it */

/* All of this build, ended by NULL; GnuTLS, which each build has, is the first. */
extern const struct aead *const aead_all[];

/* What the connections of a helper use. */
struct aead_choice {
    enum aead_cipher preferred; /* what this CPU does faster: named first in a handshake */
    const struct aead *fastest[AEAD_CIPHERS_];
    unsigned rate[AEAD_CIPHERS_]; /* MB/s that it seals and opens here; 0: it was not measured */
};

const char *aead_cipher_name(enum aead_cipher cipher);

size_t aead_key_size(enum aead_cipher cipher);

/* Initializes all libraries and measures them, for a few milliseconds, with records of the real size. Before
 * the sandbox. */
void aead_choose(struct aead_choice *ret);
