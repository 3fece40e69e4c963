/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Numbers that have words on the bus: words[number], and 0 stands for none of them. */

#include <stdint.h>
#include <string.h>

/* The number of this word; 0 where it is none of the n. */
static inline uint32_t word_number(const char *const words[], uint32_t n, const char *text)
{
    for (uint32_t i = 1; i < n; i++)
        if (strcmp(words[i], text) == 0)
            return i;
    return 0;
}
