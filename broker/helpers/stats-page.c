/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/helpers/stats-page.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"

enum { RATE_STALE = 2500000 /* µs after which a rate is of the past: nothing moves */ };

static int map(struct stats_page *page)
{
    void *p = mmap(NULL, sizeof(struct stats), PROT_READ, MAP_SHARED, page->fd, 0);

    if (p == MAP_FAILED)
        return -errno;
    page->stats = p;
    return 0;
}

int stats_page_make(struct stats_page *page)
{
    page->fd = memfd_create("vmferry-stats", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (page->fd < 0 || ftruncate(page->fd, sizeof(struct stats)) < 0 ||
        fcntl(page->fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
        return -errno;
    return map(page);
}

int stats_page_map(struct stats_page *page, int fd)
{
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);

    page->fd = fd;
    /* A page that is shorter, or could become so, would kill us when it is read. */
    if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &st) < 0 ||
        st.st_size < (off_t)sizeof(struct stats)) {
        fd_closep(&page->fd);
        return -EBADMSG;
    }
    return map(page);
}

void stats_page_detach(struct stats_page *page)
{
    struct stats *copy;

    if (!page->stats || page->detached)
        return;
    copy = calloc(1, sizeof(*copy));
    if (!copy)
        return; /* the page is kept: its numbers are what the migration came to */
    *copy = *page->stats;
    munmap(page->stats, sizeof(*page->stats));
    page->stats = copy;
    page->detached = true;
    fd_closep(&page->fd);
}

void stats_page_clear(struct stats_page *page)
{
    if (page->detached)
        free(page->stats);
    else if (page->stats)
        munmap(page->stats, sizeof(*page->stats));
    page->stats = NULL;
    fd_closep(&page->fd);
}

uint64_t stats_page_rate(const struct stats_page *page)
{
    uint64_t at;

    if (!page->stats || page->detached)
        return 0;
    at = STATS_READ(page->stats->rate_at_usec); /* first: it must not be later than what we call now */
    return exact_now() - at > RATE_STALE ? 0 : STATS_READ(page->stats->rate);
}
