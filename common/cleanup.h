/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Cleanup by attribute: a variable that owns something says so where it is declared. */

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

/* unused: clang before 15 does not count the cleanup as a use, and a lock has no other one. */
#define _cleanup_(f) __attribute__((cleanup(f), unused))

/* Closes *fd where it is a descriptor; keeps errno. */
static inline void fd_closep(int *fd)
{
    if (*fd >= 0) {
        int saved = errno;

        close(*fd);
        errno = saved;
    }
    *fd = -1;
}

static inline void freep(void *p)
{
    free(*(void **)p);
}

/* Hands *fd to the caller and leaves -1, so that the cleanup has nothing to do. */
static inline int fd_steal(int *fd)
{
    int r = *fd;

    *fd = -1;
    return r;
}

#define _cleanup_fd_   _cleanup_(fd_closep)
#define _cleanup_free_ _cleanup_(freep)
