/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "broker/sockets/qemu-socket.h"
#include "common/cleanup.h"

#include <sys/stat.h>

enum { MANY = 2000 };

static char directory[32];

static void make_directory(void)
{
    strcpy(directory, "/tmp/vmf-unit-XXXXXX");
    assert_non_null(mkdtemp(directory));
}

static void make(const char *name, mode_t type)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    assert_int_equal(mknod(path, type | 0600, 0), 0);
}

static bool there(const char *name)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    return access(path, F_OK) == 0;
}

/* How many entries it has, and nothing of it is left. */
static size_t clear_directory(void)
{
    char command[64];
    DIR *dir = opendir(directory);
    size_t n = 0;

    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    snprintf(command, sizeof(command), "rm -r %s", directory);
    assert_int_equal(system(command), 0);
    return n - 2;
}

static void remove_in(const char *where, const char *name)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", where, name);
    qemu_socket_remove_in(directory, path);
}

TEST(what_was_made_goes_and_the_directory)
{
    make_directory();
    make("migrate.sock", S_IFSOCK);
    make("nbd.sock", S_IFSOCK);
    remove_in(directory, "migrate.sock");
    assert_false(qemu_socket_remove_directory(directory));
    remove_in("/elsewhere", "nbd.sock"); /* a path of the caller's is not looked for in ours */
    assert_true(there("nbd.sock"));
    remove_in(directory, "nbd.sock");
    remove_in(directory, "no-such.sock");
    assert_true(qemu_socket_remove_directory(directory));
    assert_int_not_equal(access(directory, F_OK), 0);
    assert_true(qemu_socket_remove_directory(directory)); /* it has gone */
    remove_in(directory, "migrate.sock");
}

TEST(what_its_owner_put_there_stays)
{
    make_directory();
    make("migrate.sock", S_IFREG);
    for (int i = 0; i < MANY; i++) {
        char name[32];

        snprintf(name, sizeof(name), "%d", i);
        make(name, S_IFSOCK);
    }
    remove_in(directory, "migrate.sock");
    assert_false(qemu_socket_remove_directory(directory));
    assert_true(there("migrate.sock"));
    assert_int_equal(clear_directory(), MANY + 1);
}

TEST(of_a_leftover_few_are_looked_at)
{
    make_directory();
    make("migrate.sock", S_IFSOCK);
    make("nbd.sock", S_IFSOCK);
    assert_true(qemu_socket_remove_leftover(directory, ".sock"));
    assert_int_not_equal(access(directory, F_OK), 0);

    make_directory();
    make("not-ours", S_IFSOCK);
    make("migrate.sock", S_IFSOCK);
    assert_false(qemu_socket_remove_leftover(directory, ".sock"));
    assert_false(there("migrate.sock"));
    assert_int_equal(clear_directory(), 1);

    make_directory();
    for (int i = 0; i < MANY; i++) {
        char name[32];

        snprintf(name, sizeof(name), "%d.sock", i);
        make(name, S_IFSOCK);
    }
    assert_false(qemu_socket_remove_leftover(directory, ".sock"));
    assert_between(clear_directory(), MANY - 64, MANY - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(what_was_made_goes_and_the_directory),
        CASE(what_its_owner_put_there_stays),
        CASE(of_a_leftover_few_are_looked_at),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
