/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Fails an allocation: nth.h. */

#include "nth.h"

/* glibc's own names for them. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);

VISIBLE void *malloc(size_t size)
{
    return nth_fails(ENOMEM) ? NULL : __libc_malloc(size);
}

VISIBLE void *calloc(size_t n, size_t size)
{
    return nth_fails(ENOMEM) ? NULL : __libc_calloc(n, size);
}

VISIBLE void *realloc(void *p, size_t size)
{
    return nth_fails(ENOMEM) ? NULL : __libc_realloc(p, size);
}
