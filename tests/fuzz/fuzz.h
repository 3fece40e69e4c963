/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What libFuzzer calls with each input; or driver.c, where the fuzzers run as tests. */

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((visibility("default"))) int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What must hold for any input; also where NDEBUG is set. */
#define MUST(condition) ((condition) ? (void)0 : fuzz_must(__FILE__, __LINE__, #condition))

_Noreturn static inline void fuzz_must(const char *file, int line, const char *what)
{
    fprintf(stderr, "%s:%d: this must hold: %s\n", file, line, what);
    abort();
}

/* A copy of exactly that size, so that a sanitizer sees the first byte that is read beyond it; the caller's.
 */
static inline uint8_t *fuzz_copy(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);

    MUST(copy);
    if (size > 0)
        memcpy(copy, data, size);
    return copy;
}

/* The same as a text: all up to the first NUL. */
static inline char *fuzz_text(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);

    MUST(text);
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    return text;
}
