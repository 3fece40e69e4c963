/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * For LD_PRELOAD= of a vmferryd without sanitizers: of all that it allocates, the one of the number
 * $VMFERRY_FAIL_AT fails. How many it has asked for stands in the file $VMFERRY_FAIL_COUNT, 8 bytes. Its
 * children are left alone.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define VISIBLE __attribute__((visibility("default")))

/* glibc's own names for them. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t size);

static struct {
    uint64_t asked, failed;
} * counts;
static uint64_t fails_at;

__attribute__((constructor)) static void begin(void)
{
    const char *at = getenv("VMFERRY_FAIL_AT"), *path = getenv("VMFERRY_FAIL_COUNT");
    int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    void *page = MAP_FAILED;

    if (fd >= 0 && ftruncate(fd, sizeof(*counts)) == 0)
        page = mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        close(fd);
    unsetenv("LD_PRELOAD");
    if (page == MAP_FAILED)
        return;
    counts = page;
    counts->asked = counts->failed = 0;
    fails_at = at ? strtoul(at, NULL, 10) : 0;
}

static bool fails(void)
{
    if (!counts || __atomic_add_fetch(&counts->asked, 1, __ATOMIC_RELAXED) != fails_at)
        return false;
    counts->failed++;
    errno = ENOMEM;
    return true;
}

VISIBLE void *malloc(size_t size)
{
    return fails() ? NULL : __libc_malloc(size);
}

VISIBLE void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : __libc_calloc(n, size);
}

VISIBLE void *realloc(void *p, size_t size)
{
    return fails() ? NULL : __libc_realloc(p, size);
}
