/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* "Did you mean …?". Pure. */

#include <stddef.h>

/*
 * How many characters must be inserted, removed or replaced to make one of the other (Levenshtein), for a
 * word of size bytes. More than SPELLING_FAR is SPELLING_FAR + 1.
 */
unsigned spelling_distance(const char *word, size_t size, const char *name);

#define SPELLING_FAR 2
