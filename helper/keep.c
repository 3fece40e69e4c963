/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "keep.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "common/cleanup.h"

ssize_t splice_some(int from, int to, size_t max)
{
    ssize_t n;

    do {
        n = splice(from, NULL, to, NULL, max, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

ssize_t read_some(int fd, void *data, size_t size)
{
    ssize_t n;

    do {
        n = read(fd, data, size);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

int keep_add(struct keep *keep, int pipe)
{
    if (keep->n == KEEP_PIPES)
        return -ENOSPC;
    keep->pipes[keep->n++] = pipe;
    return 0;
}

void keep_clear(struct keep *keep)
{
    for (unsigned i = 0; i < keep->n; i++)
        fd_closep(&keep->pipes[i]);
    *keep = (struct keep){0};
}

static ssize_t tee_some(int from, int to, size_t max)
{
    ssize_t n;

    do {
        n = tee(from, to, max, SPLICE_F_NONBLOCK);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

ssize_t keep_tee(struct keep *keep, int from, size_t max)
{
    for (;;) {
        ssize_t n = tee_some(from, keep->pipes[keep->last], max);
        unsigned next = (keep->last + 1) % keep->n;

        if (n > 0)
            keep->held[keep->last] += (size_t)n;
        if (n != -EAGAIN || keep->held[next] > 0)
            return n;
        keep->last = next;
    }
}

/* The oldest pipe was emptied: the next one is the oldest. */
static void pass_on(struct keep *keep)
{
    if (keep->held[keep->first] == 0 && keep->first != keep->last)
        keep->first = (keep->first + 1) % keep->n;
}

void keep_drop(struct keep *keep, size_t n, int null)
{
    while (n > 0) {
        size_t held = keep->held[keep->first];
        ssize_t got = splice_some(keep->pipes[keep->first], null, n < held ? n : held);

        assert(got > 0);
        keep->held[keep->first] -= (size_t)got;
        n -= (size_t)got;
        pass_on(keep);
    }
}

ssize_t keep_read(struct keep *keep, void *data, size_t size)
{
    size_t held = keep->held[keep->first];
    ssize_t n = read_some(keep->pipes[keep->first], data, size < held ? size : held);

    if (n <= 0)
        return n < 0 ? n : -EIO;
    keep->held[keep->first] -= (size_t)n;
    pass_on(keep);
    return n;
}
