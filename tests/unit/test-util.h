/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the unit tests share. Each case runs between test_note() and test_check(): a descriptor or a child
 * that is left over fails it.
 */

/* In this order: cmocka.h wants them before it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define TEST(name) static void name(__attribute__((unused)) void **state)
#define CASE(name) cmocka_unit_test_setup_teardown(name, test_note, test_check)

/* cmocka's assert_in_range() is deprecated from 2.0 on, and what replaces it there is not in 1.x. */
#define assert_between(value, least, most) \
    assert_between_((uintmax_t)(value), (uintmax_t)(least), (uintmax_t)(most), #value, __FILE__, __LINE__)

static inline void assert_between_(uintmax_t value, uintmax_t least, uintmax_t most, const char *text,
                                   const char *file, int line)
{
    if (value >= least && value <= most)
        return;
    print_error("%s is %ju, not within %ju and %ju\n", text, value, least, most);
    _fail(file, line);
}

#define ELEMENTS(array) (sizeof(array) / sizeof((array)[0]))

enum { TEST_FDS = 1024 };

static bool test_fds[TEST_FDS];

/* Which descriptors are open, without the one that looks. */
static inline void test_list_fds(bool ret[static TEST_FDS])
{
    DIR *dir = opendir("/proc/self/fd");

    assert_non_null(dir);
    memset(ret, 0, TEST_FDS * sizeof(bool));
    for (const struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        long fd = strtol(entry->d_name, NULL, 10);

        if (entry->d_name[0] != '.' && fd != dirfd(dir) && fd < TEST_FDS)
            ret[fd] = true;
    }
    closedir(dir);
}

static inline size_t test_count_fds(void)
{
    bool fds[TEST_FDS];
    size_t n = 0;

    test_list_fds(fds);
    for (int fd = 0; fd < TEST_FDS; fd++)
        n += fds[fd];
    return n;
}

static inline int test_note(__attribute__((unused)) void **state)
{
    test_list_fds(test_fds);
    return 0;
}

static inline int test_check(__attribute__((unused)) void **state)
{
    bool now[TEST_FDS];
    int r = 0;

    test_list_fds(now);
    for (int fd = 0; fd < TEST_FDS; fd++) {
        if (now[fd] == test_fds[fd])
            continue;
        print_error("descriptor %d is %s\n", fd, now[fd] ? "left open" : "closed by mistake");
        r = -1;
    }
    if (waitpid(-1, NULL, WNOHANG) >= 0 || errno != ECHILD) {
        print_error("a child is left\n");
        r = -1;
    }
    return r;
}

/* The same numbers in every run (xorshift64*). */
static inline uint32_t test_random(void)
{
    static uint64_t x = 0x9e3779b97f4a7c15;

    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    return (uint32_t)((x * 0x2545f4914f6cdd1d) >> 32);
}

/* The byte at an offset of a stream; no period that a buffer's size has. */
static inline uint8_t test_pattern(uint64_t offset)
{
    return (uint8_t)(offset ^ (offset >> 8) * 7 ^ (offset >> 16) * 13);
}

static inline void test_fill(uint8_t *data, size_t size, uint64_t offset)
{
    for (size_t i = 0; i < size; i++)
        data[i] = test_pattern(offset + i);
}

static inline void test_expect(const uint8_t *data, size_t size, uint64_t offset)
{
    for (size_t i = 0; i < size; i++)
        if (data[i] != test_pattern(offset + i))
            fail_msg("byte %llu of the stream is %u, not %u", (unsigned long long)(offset + i), data[i],
                     test_pattern(offset + i));
}

/* A non-blocking pair; buffer: bytes asked for in each direction, 0 = as the kernel has it. */
static inline void test_pair(int type, int buffer, int ret[static 2])
{
    assert_int_equal(socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ret), 0);
    for (int i = 0; buffer > 0 && i < 2; i++)
        assert_int_equal(setsockopt(ret[i], SOL_SOCKET, SO_SNDBUF, &buffer, sizeof(buffer)), 0);
}

/* The same over TCP; the first one connected. */
static inline void test_tcp_pair(int ret[static 2])
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(in);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(listener, (const struct sockaddr *)&in, size), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&in, &size), 0);
    ret[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(ret[0], (const struct sockaddr *)&in, size), 0);
    assert_int_equal(fcntl(ret[0], F_SETFL, O_NONBLOCK), 0);
    ret[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    assert_true(ret[1] >= 0);
    close(listener);
}

static inline bool test_in_valgrind(void)
{
    const char *preload = getenv("LD_PRELOAD");

    return preload && strstr(preload, "vgpreload");
}
