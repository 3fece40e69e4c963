/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * For LD_PRELOAD= of a vmferryd without sanitizers: of all that it asks for, the one of the number
 * $VMFERRY_FAIL_AT fails. How many it has asked for, and how many have failed, stand in the file
 * $VMFERRY_FAIL_COUNT, 8 bytes each. What it executes is left alone.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define VISIBLE __attribute__((visibility("default")))

static struct {
    uint64_t asked, failed;
} * nth_counts;
static uint64_t nth_fails_at;

__attribute__((constructor)) static void nth_begin(void)
{
    const char *at = getenv("VMFERRY_FAIL_AT"), *path = getenv("VMFERRY_FAIL_COUNT");
    bool is_broker = strcmp(program_invocation_short_name, "vmferryd") == 0; /* not the shell before it */
    int fd = path && is_broker ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    void *page = MAP_FAILED;

    if (fd >= 0 && ftruncate(fd, sizeof(*nth_counts)) == 0)
        page = mmap(NULL, sizeof(*nth_counts), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        close(fd);
    if (is_broker)
        unsetenv("LD_PRELOAD");
    if (page == MAP_FAILED)
        return;
    nth_counts = page;
    nth_counts->asked = nth_counts->failed = 0;
    nth_fails_at = at ? strtoul(at, NULL, 10) : 0;
}

/* Whether what is asked for now is to fail; with this errno. */
static bool nth_fails(int error)
{
    if (!nth_counts || __atomic_add_fetch(&nth_counts->asked, 1, __ATOMIC_RELAXED) != nth_fails_at)
        return false;
    nth_counts->failed++;
    errno = error;
    return true;
}
