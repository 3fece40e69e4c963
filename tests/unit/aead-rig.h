/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The libraries that seal records. */

#include <stdbool.h>

#include "helper/carrier/aead.h"

/* What a helper would use here. */
static inline const struct aead_choice *aeads_chosen(void)
{
    static struct aead_choice choice;

    if (!choice.fastest[0])
        aead_choose(&choice);
    return &choice;
}

static inline bool aead_has(const struct aead *aead, enum aead_cipher cipher)
{
    static const uint8_t zeros[AEAD_KEY_MAX];
    void *key = aead->new_key(cipher, zeros);

    if (key)
        aead->free_key(key);
    return key;
}

/* Without a choice: GnuTLS at one end, and at the other the last library of this build that has the cipher.
 */
static inline const struct aead_choice *aeads_of_side(bool connecting)
{
    static struct aead_choice sides[2];
    struct aead_choice *side = &sides[connecting];

    if (!side->fastest[0]) {
        *side = *aeads_chosen();
        for (enum aead_cipher cipher = 0; cipher < AEAD_CIPHERS_; cipher++)
            for (size_t i = 0; aead_all[i]; i++)
                if (i == 0 || (!connecting && aead_has(aead_all[i], cipher)))
                    side->fastest[cipher] = aead_all[i];
    }
    return side;
}
