/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/carrier/aead.h"

#include <stdbool.h>
#include <stdlib.h>
#include <time.h>
#if defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

const struct aead *const aead_all[] = {
    &aead_gnutls,
#ifdef HAVE_OPENSSL
    &aead_openssl,
#endif
#ifdef HAVE_IPSEC_MB
    &aead_ipsec_mb,
#endif
    NULL,
};

const char *aead_cipher_name(enum aead_cipher cipher)
{
    return cipher == AEAD_AES_128_GCM ? "AES-128-GCM" : "ChaCha20-Poly1305";
}

size_t aead_key_size(enum aead_cipher cipher)
{
    return cipher == AEAD_AES_128_GCM ? 16 : 32;
}

/* With instructions for AES that is several times faster than ChaCha20, and without them slower. */
static enum aead_cipher preferred(void)
{
    bool aes = false;

#if defined(__x86_64__) || defined(__i386__)
    aes = __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
#elif defined(__aarch64__)
    aes = (getauxval(AT_HWCAP) & HWCAP_AES) != 0;
#endif
    return aes ? AEAD_AES_128_GCM : AEAD_CHACHA20_POLY1305;
}

enum {
    RECORD = 16384,
    LOOK = 300000, /* ns for each library and cipher; in any case LOOKS_MIN */
    LOOKS_MIN = 3,
};

static uint64_t now_nsec(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Nanoseconds for sealing and opening a record (half of both), or UINT64_MAX where the library does not
 * serve. The best of many counts: the others were interrupted, or found the cache cold. */
static uint64_t measure(const struct aead *aead, enum aead_cipher cipher, uint8_t *plain, uint8_t *sealed)
{
    static const uint8_t zeros[AEAD_KEY_MAX];
    uint64_t best = UINT64_MAX, begin = now_nsec(), now = begin;
    void *key = aead->new_key(cipher, zeros);

    for (int looks = 0; key && (looks < LOOKS_MIN || now - begin < LOOK); looks++) {
        uint64_t since = now;

        if (aead->seal(key, zeros, zeros, plain, RECORD, 0, sealed) < 0 ||
            aead->open(key, zeros, zeros, sealed, RECORD + 1 + AEAD_TAG, plain) < 0) {
            best = UINT64_MAX;
            break;
        }
        now = now_nsec();
        best = now - since < best ? now - since : best;
    }
    if (key)
        aead->free_key(key);
    return best == UINT64_MAX ? best : best / 2;
}

void aead_choose(struct aead_choice *ret)
{
    uint8_t *memory = calloc(2, RECORD + 1 + AEAD_TAG);
    uint64_t best[AEAD_CIPHERS_];

    *ret = (struct aead_choice){.preferred = preferred()};
    for (enum aead_cipher cipher = 0; cipher < AEAD_CIPHERS_; cipher++) {
        ret->fastest[cipher] = aead_all[0];
        best[cipher] = UINT64_MAX;
    }
    for (size_t i = 0; memory && aead_all[i]; i++) {
        if (aead_all[i]->init() < 0)
            continue;
        for (enum aead_cipher cipher = 0; cipher < AEAD_CIPHERS_; cipher++) {
            uint64_t spent = measure(aead_all[i], cipher, memory, memory + RECORD + 1 + AEAD_TAG);

            if (spent < best[cipher]) {
                best[cipher] = spent;
                ret->fastest[cipher] = aead_all[i];
                ret->rate[cipher] = (unsigned)(RECORD * 1000 / (spent + 1));
            }
        }
    }
    free(memory);
}
