/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a flow out of QEMU has sent and its peer has not acknowledged, in pipes: tee(2) copies the references
 * to the pages of what is about to be spliced, splice(2) to /dev/null gives them up again. No byte comes into
 * this process' memory unless the connection is lost: then it is read back.
 *
 * A pipe ends at 1 MiB for who is not privileged, and at a page a slot when pieces are small: so there are
 * several, used in turn.
 */

#include <stddef.h>
#include <sys/types.h>

#include "common/message.h"

struct keep {
    int pipes[KEEP_PIPES];   /* owned; each with one descriptor for both of its ends */
    size_t held[KEEP_PIPES]; /* bytes in each */
    unsigned n;              /* pipes there are */
    unsigned first;          /* the one with the oldest bytes */
    unsigned last;           /* the one that is filled */
};

/* Hands all of it to the caller and leaves an empty one. */
static inline struct keep keep_steal(struct keep *keep)
{
    struct keep r = *keep;

    *keep = (struct keep){0};
    return r;
}

/* Takes the pipe; 0, or -ENOSPC when there are enough of them (then it is still the caller's). */
int keep_add(struct keep *keep, int pipe);

void keep_clear(struct keep *keep);

/* Keeps up to max of the first bytes in the pipe `from`, which stay there: > 0, or -EAGAIN when all is full.
 */
ssize_t keep_tee(struct keep *keep, int from, size_t max);

/* Forgets the oldest n bytes. null: /dev/null, open for writing. */
void keep_drop(struct keep *keep, size_t n, int null);

/* Takes up to size of the oldest bytes: > 0, or a negative errno. */
ssize_t keep_read(struct keep *keep, void *data, size_t size);

/* As read(2), with -errno. */
ssize_t read_some(int fd, void *data, size_t size);

/* Moves up to max bytes between a socket and a pipe, or two pipes: as splice(2), with -errno. */
ssize_t splice_some(int from, int to, size_t max);
