/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "broker/helpers/stats-page.h"

/* There is memory, or there is none. */

static bool exhausted;

void *__wrap_calloc(size_t n, size_t size);
void *__real_calloc(size_t n, size_t size);

void *__wrap_calloc(size_t n, size_t size)
{
    if (exhausted) {
        errno = ENOMEM;
        return NULL;
    }
    return __real_calloc(n, size);
}

/* The helper's view of a page. */
static struct stats *helpers(const struct stats_page *page)
{
    struct stats *stats = mmap(NULL, sizeof(*stats), PROT_READ | PROT_WRITE, MAP_SHARED, page->fd, 0);

    assert_true(stats != MAP_FAILED);
    return stats;
}

TEST(what_the_helper_writes_is_read_until_it_is_detached)
{
    struct stats_page page = {.fd = -1};
    struct stats *stats;

    assert_int_equal(stats_page_make(&page), 0);
    stats = helpers(&page);
    STATS_WRITE(stats->sent, 42);
    assert_int_equal(STATS_READ(page.stats->sent), 42);
    stats_page_detach(&page);
    stats_page_detach(&page); /* once more is harmless */
    assert_true(page.detached);
    assert_int_equal(page.fd, -1);
    STATS_WRITE(stats->sent, 43); /* nobody asked it for that */
    assert_int_equal(STATS_READ(page.stats->sent), 42);
    assert_int_equal(stats_page_rate(&page), 0);
    stats_page_clear(&page);
    munmap(stats, sizeof(*stats));
}

TEST(the_figures_stay_where_there_is_no_memory_for_their_copy)
{
    struct stats_page page = {.fd = -1};
    struct stats *stats;

    assert_int_equal(stats_page_make(&page), 0);
    stats = helpers(&page);
    STATS_WRITE(stats->sent, 42);
    munmap(stats, sizeof(*stats));
    exhausted = true;
    stats_page_detach(&page);
    exhausted = false;
    assert_non_null(page.stats);
    assert_int_equal(STATS_READ(page.stats->sent), 42);
    stats_page_detach(&page); /* there is some again */
    assert_true(page.detached);
    assert_int_equal(STATS_READ(page.stats->sent), 42);
    stats_page_clear(&page);
}

TEST(a_page_that_may_become_shorter_is_refused)
{
    struct stats_page page = {.fd = -1};
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, sizeof(struct stats)), 0);
    assert_int_equal(stats_page_map(&page, fd), -EBADMSG);
    assert_int_equal(page.fd, -1);
    assert_null(page.stats);
    stats_page_clear(&page);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(what_the_helper_writes_is_read_until_it_is_detached),
        CASE(the_figures_stay_where_there_is_no_memory_for_their_copy),
        CASE(a_page_that_may_become_shorter_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
