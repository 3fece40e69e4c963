/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a child of ssh's says on its stderr: ssh's own lines, what the far host's shell prints, and the one
 * line of vmferryctl there. Pure. Keeps the end of it, which is where the reason is.
 */

#include <stdbool.h>
#include <stddef.h>

enum { WORDS_MAX = 8192 }; /* a path of 4 KiB fits twice: the far end's line must be whole */

struct words {
    size_t n;
    char text[WORDS_MAX];
};

/* Takes what was read; where there is no room the oldest bytes go. */
void words_add(struct words *words, const char *data, size_t size);

/*
 * What to show of it, as one line in ret (cut to its size, never within a character's bytes but at the end of
 * what fits). True where the far vmferryctl has spoken: then it is what follows "vmferryctl: " in its last
 * line that begins so, and whatever a login script, a Banner or ssh say before and after it is left out.
 * Otherwise it is all lines, without those that only warn where there are others, and without the full stop
 * at the end, since it is quoted; "" for nothing.
 */
bool words_reason(const struct words *words, char *ret, size_t size);
