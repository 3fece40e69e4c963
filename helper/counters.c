/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/counters.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/cleanup.h"

int counters_map(struct counters *counters, int fd)
{
    _cleanup_fd_ int owned = fd;
    int seals = fcntl(owned, F_GET_SEALS);
    void *p;

    /* Sealed against shrinking: no process can make a write to it a SIGBUS. */
    if (seals < 0 || !(seals & F_SEAL_SHRINK) || lseek(owned, 0, SEEK_END) < (off_t)sizeof(struct stats))
        return -EBADMSG;
    p = mmap(NULL, sizeof(struct stats), PROT_READ | PROT_WRITE, MAP_SHARED, owned, 0);
    if (p == MAP_FAILED)
        return -errno;
    counters->page = p;
    return 0;
}

void counters_unmap(struct counters *counters)
{
    if (counters->page)
        munmap(counters->page, sizeof(*counters->page));
    counters->page = NULL;
}

void counters_rate(struct counters *counters, uint64_t now)
{
    uint64_t moved = STATS_READ(counters->page->sent) + STATS_READ(counters->page->received);
    uint64_t usec = now - counters->rated_at;

    STATS_WRITE(counters->page->rate, (moved - counters->rated) * 1000000 / (usec > 0 ? usec : 1));
    STATS_WRITE(counters->page->rate_at_usec, now);
    counters->rated = moved;
    counters->rated_at = now;
}
