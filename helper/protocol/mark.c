/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/protocol/mark.h"

#include <endian.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <string.h>

int mark_key(const uint8_t key[static KEY_SIZE], uint64_t id, uint8_t ret[static KEY_SIZE])
{
    return key_derive(key, id, "vmferry preamble v1", ret);
}

/* The first 8 bytes of HMAC-SHA-256 over all of the preamble before them. */
static int mac_of(const uint8_t key[static KEY_SIZE], const struct preamble *preamble, uint64_t *ret)
{
    uint8_t buf[PREAMBLE_SIZE], mac[32];

    preamble_encode(preamble, buf);
    if (gnutls_hmac_fast(GNUTLS_MAC_SHA256, key, KEY_SIZE, buf, PREAMBLE_SIZE - 8, mac) < 0)
        return -EIO;
    *ret = get64(mac);
    return 0;
}

int mark_make(const uint8_t key[static KEY_SIZE], struct preamble *preamble)
{
    return mac_of(key, preamble, &preamble->mark.mac);
}

bool mark_is_right(const uint8_t key[static KEY_SIZE], const struct preamble *preamble)
{
    uint64_t mac;

    return preamble->mark.number != 0 && mac_of(key, preamble, &mac) >= 0 &&
           gnutls_memcmp(&mac, &preamble->mark.mac, sizeof(mac)) == 0;
}

static uint64_t *word_of(struct mark_window *window, uint32_t number)
{
    return &window->seen[number % MARKS_BACK / 64];
}

bool mark_window_take(struct mark_window *window, uint32_t number)
{
    uint64_t bit = (uint64_t)1 << (number % 64);

    if (number == 0 || (number <= window->highest && window->highest - number >= MARKS_BACK))
        return false;
    if (number > window->highest && number - window->highest >= MARKS_BACK)
        memset(window->seen, 0, sizeof(window->seen));
    else
        for (uint32_t n = window->highest; n < number; n++) /* those in between have yet to come */
            *word_of(window, n + 1) &= ~((uint64_t)1 << ((n + 1) % 64));
    if (number > window->highest)
        window->highest = number;
    if (*word_of(window, number) & bit)
        return false;
    *word_of(window, number) |= bit;
    return true;
}
