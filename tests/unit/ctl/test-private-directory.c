/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A directory for a socket: nobody else enters it, and it does not outlive its process for long. */

#include "test-util.h"

#include <signal.h>
#include <sys/stat.h>

#include "common/cleanup.h"
#include "ctl/private-directory.h"

static char base[32];

static void begin(void)
{
    strcpy(base, "/tmp/vmferry-test.XXXXXX");
    assert_non_null(mkdtemp(base));
}

/* Nothing but what the case has removed itself was left. */
static void end(void)
{
    assert_int_equal(rmdir(base), 0);
}

static struct private_directory make(void)
{
    struct private_directory directory;

    assert_int_equal(private_directory_make(base, "ssh", &directory), 0);
    return directory;
}

static void make_file(const char *directory, const char *name)
{
    char path[256];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
}

static bool is_there(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

/* Another process makes one, with a file in it; it holds it until its end. */
static pid_t make_elsewhere(char ret[static PRIVATE_DIRECTORY_MAX])
{
    int pipe_fds[2];
    pid_t pid;

    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct private_directory directory;

        if (private_directory_make(base, "ssh", &directory) == 0 &&
            write(pipe_fds[1], directory.path, sizeof(directory.path)) > 0)
            pause();
        _exit(1);
    }
    assert_int_equal(read(pipe_fds[0], ret, PRIVATE_DIRECTORY_MAX), PRIVATE_DIRECTORY_MAX);
    close(pipe_fds[0]);
    close(pipe_fds[1]);
    make_file(ret, "ssh.0123456789abcdef");
    return pid;
}

static void kill_it(pid_t pid)
{
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

TEST(it_is_this_users_alone)
{
    struct private_directory directory;
    struct stat st;

    begin();
    directory = make();
    assert_int_equal(stat(directory.path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_true(fcntl(directory.lock, F_GETFD) & FD_CLOEXEC);
    make_file(directory.path, "ssh");
    private_directory_remove(&directory);
    assert_string_equal(directory.path, "");
    private_directory_remove(&directory); /* of none, nothing */
    end();
}

TEST(what_a_killed_one_has_left_goes_with_the_next)
{
    struct private_directory directory;
    char left[PRIVATE_DIRECTORY_MAX], held[PRIVATE_DIRECTORY_MAX];
    pid_t killed, living;

    begin();
    killed = make_elsewhere(left);
    living = make_elsewhere(held);
    kill_it(killed);
    assert_true(is_there(left));
    directory = make();
    assert_false(is_there(left));
    assert_true(is_there(held));
    private_directory_remove(&directory);
    kill_it(living);
    directory = make();
    assert_false(is_there(held));
    private_directory_remove(&directory);
    end();
}

/* A directory without a lock may be one of an earlier vmferryctl's, which held none, or anything else. */
TEST(what_is_not_ours_stays)
{
    static const char *const names[] = {"vmferryctl-Ab12Cd",         "vmferryctl.Ab12Cd",
                                        "vmferryctl-libvirt-Ab12Cd", "vmferryctl-ssh-Ab12C",
                                        "vmferryctl-ssh-Ab12Cd34",   "ssh-Ab12Cd"};
    struct private_directory directory;
    char path[128], outside[64];

    begin();
    snprintf(outside, sizeof(outside), "%s/outside", base);
    assert_int_equal(mkdir(outside, 0700), 0);
    make_file(outside, "kept");
    snprintf(path, sizeof(path), "%s/vmferryctl-ssh-aaaaaa", base);
    assert_int_equal(symlink(outside, path), 0);
    make_file(base, "vmferryctl-ssh-bbbbbb");
    for (unsigned i = 0; i < ELEMENTS(names); i++) {
        snprintf(path, sizeof(path), "%s/%s", base, names[i]);
        assert_int_equal(mkdir(path, 0700), 0);
    }
    directory = make();
    private_directory_remove(&directory);
    for (unsigned i = 0; i < ELEMENTS(names); i++) {
        snprintf(path, sizeof(path), "%s/%s", base, names[i]);
        assert_int_equal(rmdir(path), 0);
    }
    snprintf(path, sizeof(path), "%s/vmferryctl-ssh-aaaaaa", base);
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof(path), "%s/vmferryctl-ssh-bbbbbb", base);
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof(path), "%s/kept", outside);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(outside), 0);
    end();
}

TEST(another_users_stays)
{
    struct private_directory directory;
    char path[128];

    if (geteuid() != 0)
        skip();
    begin();
    snprintf(path, sizeof(path), "%s/vmferryctl-ssh-aaaaaa", base);
    assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(chown(path, 1, 1), 0);
    directory = make();
    private_directory_remove(&directory);
    assert_int_equal(rmdir(path), 0);
    end();
}

/* Each finds the others' just after they are made, and before they are locked: none loses its own. */
TEST(many_at_once)
{
    enum { PROCESSES = 8, ROUNDS = 200 };
    pid_t pids[PROCESSES];

    begin();
    for (unsigned i = 0; i < PROCESSES; i++) {
        pids[i] = fork();
        assert_true(pids[i] >= 0);
        if (pids[i] > 0)
            continue;
        for (unsigned round = 0; round < ROUNDS; round++) {
            struct private_directory directory;
            char path[PRIVATE_DIRECTORY_MAX + 8];

            if (private_directory_make(base, "ssh", &directory) < 0)
                _exit(1);
            snprintf(path, sizeof(path), "%s/ssh", directory.path);
            int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
            if (fd < 0)
                _exit(2);
            close(fd);
            private_directory_remove(&directory);
        }
        _exit(0);
    }
    for (unsigned i = 0; i < PROCESSES; i++) {
        int status;

        assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
        assert_int_equal(status, 0);
    }
    end();
}

TEST(where_there_can_be_none)
{
    struct private_directory directory;

    assert_int_equal(private_directory_make("/nowhere/at-all", "ssh", &directory), -ENOENT);
    assert_string_equal(directory.path, "");
    assert_int_equal(
        private_directory_make("/a-directory-whose-name-is-too-long-for-a-socket-in-it", "ssh", &directory),
        -ENAMETOOLONG);
    assert_string_equal(directory.path, "");
    private_directory_remove(&directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(it_is_this_users_alone), CASE(what_a_killed_one_has_left_goes_with_the_next),
        CASE(what_is_not_ours_stays), CASE(another_users_stays),
        CASE(many_at_once),           CASE(where_there_can_be_none),
    };

    return cmocka_run_group_tests_name("ctl-private-directory", tests, NULL, NULL);
}
