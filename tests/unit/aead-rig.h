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

/* Without a choice: GnuTLS at one end and the last library of this build at the other. */
static inline const struct aead_choice *aeads_of_side(bool connecting)
{
    static struct aead_choice sides[2];
    struct aead_choice *side = &sides[connecting];

    if (!side->fastest[0]) {
        size_t last = 0;

        *side = *aeads_chosen();
        while (aead_all[last + 1])
            last++;
        for (size_t i = 0; i < AEAD_CIPHERS_; i++)
            side->fastest[i] = aead_all[connecting ? 0 : last];
    }
    return side;
}
