/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sandbox-rig.h"

#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

/* What isolation takes away. */

static void look_at_fds(int fd)
{
    int high;

    /* Others around it, near and far, and not on the lowest number. */
    fd = fcntl(fd, F_DUPFD, 20);
    REQUIRE(fd >= 20);
    REQUIRE(fcntl(fd, F_DUPFD, fd + 1) == fd + 1);
    high = fcntl(fd, F_DUPFD, 900);
    REQUIRE(high >= 900);
    REQUIRE(open("/", O_RDONLY) >= 3);
    REQUIRE(sandbox_isolate(fd) == 0);
    for (int i = 0; i < 2000; i++) {
        bool is_open = fcntl(i, F_GETFD) >= 0;

        REQUIRE(is_open == (i == fd) || i <= 2);
    }
}

static void look_at_fd_3(int fd)
{
    REQUIRE(dup2(fd, 3) == 3);
    REQUIRE(dup2(fd, 4) == 4);
    REQUIRE(sandbox_isolate(3) == 0);
    for (int i = 0; i < 2000; i++)
        REQUIRE((fcntl(i, F_GETFD) >= 0) == (i == 3) || i <= 2);
}

TEST(test_fds_are_closed)
{
    assert_int_equal(in_child(OPEN, look_at_fds), 0);
    assert_int_equal(in_child(OPEN, look_at_fd_3), 0);
}

static void require_no_capability(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};

    REQUIRE(syscall(SYS_capget, &head, data) == 0);
    for (int i = 0; i < 2; i++)
        REQUIRE(data[i].effective == 0 && data[i].permitted == 0 && data[i].inheritable == 0);
    for (int i = 0; i <= CAP_LAST_CAP; i++)
        REQUIRE(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, i, 0, 0) <= 0);
}

static void require_no_root(void)
{
    uid_t uid[3];
    gid_t gid[3];

    REQUIRE(getresuid(&uid[0], &uid[1], &uid[2]) == 0);
    REQUIRE(getresgid(&gid[0], &gid[1], &gid[2]) == 0);
    for (int i = 0; i < 3; i++)
        REQUIRE(uid[i] != 0 && gid[i] != 0);
    REQUIRE(setresuid(0, 0, 0) < 0);
    REQUIRE(setresgid(0, 0, 0) < 0);
    require_no_capability();
}

static void look_at_limits(int fd)
{
    struct rlimit limit;

    (void)fd;
    REQUIRE(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0);
    REQUIRE(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
    REQUIRE(getrlimit(RLIMIT_CORE, &limit) == 0 && limit.rlim_cur == 0 && limit.rlim_max == 0);
    REQUIRE(getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_max == 0);
    REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max <= 4096 &&
            limit.rlim_cur == limit.rlim_max);
}

TEST(test_limits)
{
    assert_int_equal(in_child(ISOLATED, look_at_limits), 0);
}

static void look_at_root(int fd)
{
    (void)fd;
    REQUIRE(getuid() == 65534 && getgid() == 65534);
    REQUIRE(getgroups(0, NULL) == 0);
    require_no_root();
}

TEST(test_root_is_dropped)
{
    if (getuid() != 0)
        skip();
    assert_int_equal(in_child(ISOLATED, look_at_root), 0);
}

/* Root in hiding: only the saved uid is 0. */
static void hide_root(int fd)
{
    REQUIRE(setgroups(0, NULL) == 0);
    REQUIRE(setresgid(1000, 1000, 1000) == 0);
    REQUIRE(setresuid(1000, 1000, 0) == 0);
    REQUIRE(sandbox_isolate(fd) == 0);
    require_no_root();
}

TEST(test_saved_root_is_dropped)
{
    if (getuid() != 0)
        skip();
    assert_int_equal(in_child(OPEN, hide_root), 0);
}

/* No root, but capabilities, as from AmbientCapabilities= of a unit. */
static void keep_capabilities(int fd)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};

    REQUIRE(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) == 0);
    REQUIRE(setgroups(0, NULL) == 0);
    REQUIRE(setresgid(1000, 1000, 1000) == 0);
    REQUIRE(setresuid(1000, 1000, 1000) == 0);
    data[0].effective = data[0].permitted = data[0].inheritable = 1U << CAP_NET_ADMIN;
    REQUIRE(syscall(SYS_capset, &head, data) == 0);
    REQUIRE(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_ADMIN, 0, 0) == 0);
    REQUIRE(sandbox_isolate(fd) == 0);
    require_no_root();
}

/* Root whose capabilities the kernel does not take away with its uid. */
static void keep_by_securebits(int fd)
{
    REQUIRE(prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) == 0);
    REQUIRE(sandbox_isolate(fd) == 0);
    require_no_root();
}

TEST(test_capabilities_are_dropped)
{
    if (getuid() != 0)
        skip();
    assert_int_equal(in_child(OPEN, keep_capabilities), 0);
    assert_int_equal(in_child(OPEN, keep_by_securebits), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_fds_are_closed),           CASE(test_limits),
        CASE(test_root_is_dropped),          CASE(test_saved_root_is_dropped),
        CASE(test_capabilities_are_dropped),
    };

    if (skipped_in_valgrind())
        return 0;
    return cmocka_run_group_tests_name("sandbox-isolation", tests, NULL, NULL);
}
