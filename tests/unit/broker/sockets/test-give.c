/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "broker/sockets/give.h"
#include "broker/sockets/qemu-socket.h"
#include "common/cleanup.h"
#include "common/fd-pass.h"
#include "common/give.h"

#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

/* The broker's side, and a stand-in that answers as each case wants it. What it saw comes by a pipe. */

enum { SOMEBODY = 4711, GROUP = 4712 };

enum act {
    ANSWER,       /* 0 */
    REFUSE,       /* -EPERM */
    POSITIVE,     /* no error of anybody's */
    SHORT,        /* half a reply */
    LONG,         /* more than one */
    CLOSE,        /* no reply, and the connection is closed */
    GIVE_CLOSE,   /* the same, but done it is */
    GIVE,         /* done, and answered */
    ANSWER_CLOSE, /* answered, and then the connection is closed */
    SILENT,       /* nothing */
};

struct seen {
    struct give_request request;
    struct stat st;
    int connection; /* counted */
};

struct giver {
    pid_t pid;
    int seen; /* what came, one struct each */
};

static char dir[] = "/tmp/vmf-give-XXXXXX";
static char path[64];

static bool answer(int fd, enum act act, int file, const struct give_request *request)
{
    struct give_reply replies[2] = {{.error = act == REFUSE ? -EPERM : act == POSITIVE ? EPERM : 0}};
    size_t size = act == SHORT ? sizeof(replies[0]) / 2 : act == LONG ? sizeof(replies) : sizeof(replies[0]);

    if ((act == GIVE || act == GIVE_CLOSE) &&
        fchownat(file, "", request->uid, request->gid, AT_EMPTY_PATH) < 0)
        _exit(1);
    if (act == SILENT)
        return true;
    if (act != CLOSE && act != GIVE_CLOSE)
        fd_pass_send(fd, replies, size, NULL, 0);
    return act != CLOSE && act != GIVE_CLOSE && act != ANSWER_CLOSE;
}

static void stand_in(int listener, int to, const enum act *acts, size_t n)
{
    _cleanup_fd_ int fd = -1;
    struct seen seen = {0};

    prctl(PR_SET_PDEATHSIG, SIGKILL); /* of a case that failed */
    for (size_t i = 0; i < n;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int fds[FD_PASS_MAX];
        size_t n_fds = 0;

        if (fd < 0) {
            fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
            seen.connection++;
            continue;
        }
        if (poll(&p, 1, -1) < 1 ||
            fd_pass_recv(fd, 0, &seen.request, sizeof(seen.request), fds, &n_fds) <= 0) {
            fd_closep(&fd);
            continue;
        }
        if (n_fds != 1 || fstat(fds[0], &seen.st) < 0 || write(to, &seen, sizeof(seen)) != sizeof(seen))
            _exit(1);
        if (!answer(fd, acts[i++], fds[0], &seen.request))
            fd_closep(&fd);
        close(fds[0]);
    }
    while (fd >= 0) /* its end is the test's */
        pause();
    _exit(0);
}

static struct giver begin(const enum act *acts, size_t n)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int pair[2], listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct giver giver = {0};

    strcpy(address.sun_path, path);
    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(listener, 4), 0);
    assert_int_equal(pipe2(pair, O_CLOEXEC | O_NONBLOCK), 0);
    giver = (struct giver){.pid = fork(), .seen = pair[0]};
    assert_true(giver.pid >= 0);
    if (giver.pid == 0)
        stand_in(listener, pair[1], acts, n);
    close(listener);
    close(pair[1]);
    return giver;
}

#define BEGIN(...) begin((const enum act[]){__VA_ARGS__}, ELEMENTS(((const enum act[]){__VA_ARGS__})))

/* The next request that came, or false. */
static bool saw(const struct giver *giver, struct seen *ret)
{
    return read(giver->seen, ret, sizeof(*ret)) == sizeof(*ret);
}

static void end(struct giver *giver, struct give *give)
{
    give_end(give);
    kill(giver->pid, SIGKILL);
    assert_int_equal(waitpid(giver->pid, NULL, 0), giver->pid);
    close(giver->seen);
    assert_int_equal(unlink(path), 0);
}

static int open_dir(void)
{
    int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

static struct give new_give(void)
{
    return (struct give){.socket = path, .fd = -1};
}

static double seconds(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

TEST(test_asks)
{
    struct give give = new_give();
    struct giver giver = BEGIN(ANSWER, REFUSE, ANSWER);
    _cleanup_fd_ int file = open_dir();
    struct seen seen;
    struct stat st;

    assert_int_equal(fstat(file, &st), 0);
    assert_int_equal(give_to(&give, file, SOMEBODY, GROUP), 0);
    assert_int_equal(give_to(&give, file, SOMEBODY, (gid_t)-1), -EPERM);
    assert_int_equal(give_to(&give, file, geteuid(), (gid_t)-1), 0); /* it is ours: nobody is asked */
    assert_int_equal(give_to(&give, file, geteuid(), GROUP), 0);
    assert_true(saw(&giver, &seen));
    assert_int_equal(seen.request.version, GIVE_VERSION);
    assert_int_equal(seen.request.uid, SOMEBODY);
    assert_int_equal(seen.request.gid, GROUP);
    assert_int_equal(seen.st.st_ino, st.st_ino);
    assert_true(saw(&giver, &seen));
    assert_int_equal(seen.request.gid, (gid_t)-1);
    assert_true(saw(&giver, &seen));
    assert_int_equal(seen.request.uid, geteuid());
    assert_int_equal(seen.connection, 1); /* the same for all of them */
    assert_false(saw(&giver, &seen));
    end(&giver, &give);
}

TEST(test_takes_no_answer_that_is_none)
{
    static const enum act acts[] = {POSITIVE, SHORT, LONG};

    for (size_t i = 0; i < ELEMENTS(acts); i++) {
        struct give give = new_give();
        struct giver giver = BEGIN(acts[i], ANSWER);
        _cleanup_fd_ int file = open_dir();
        struct seen seen;

        assert_int_equal(give_to(&give, file, SOMEBODY, GROUP), -ENOLINK);
        assert_int_equal(give.fd, -1);
        assert_int_equal(give_to(&give, file, SOMEBODY, GROUP), 0); /* of a new connection */
        assert_true(saw(&giver, &seen) && saw(&giver, &seen));
        assert_int_equal(seen.connection, 2);
        end(&giver, &give);
    }
}

TEST(test_asks_another_once)
{
    struct give give = new_give();
    struct giver giver = BEGIN(CLOSE, ANSWER_CLOSE, ANSWER_CLOSE, CLOSE, CLOSE, ANSWER);
    _cleanup_fd_ int file = open_dir();
    struct seen seen = {0};

    assert_int_equal(give_to(&give, file, SOMEBODY, GROUP), 0);        /* of the second connection */
    assert_int_equal(give_to(&give, file, SOMEBODY, GROUP), 0);        /* the third */
    assert_int_equal(give_to(&give, file, SOMEBODY, GROUP), -ENOLINK); /* the fourth and the fifth */
    assert_int_equal(give_to(&give, file, SOMEBODY, GROUP), 0);
    while (saw(&giver, &seen))
        ;
    assert_int_equal(seen.connection, 6);
    end(&giver, &give);
}

TEST(test_sees_what_is_done)
{
    struct give give = new_give();
    struct giver giver = {0};
    _cleanup_fd_ int file = open_dir(), made = -1;

    if (geteuid() != 0)
        skip();
    giver = BEGIN(GIVE_CLOSE, CLOSE, REFUSE);
    assert_int_equal(mkdirat(file, "done", 0700), 0);
    made = openat(file, "done", O_PATH | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(give_to(&give, made, SOMEBODY, GROUP), 0);
    /* Done by half is not done. */
    assert_int_equal(give_to(&give, made, SOMEBODY, GROUP + 1), -EPERM);
    assert_int_equal(unlinkat(file, "done", AT_REMOVEDIR), 0);
    end(&giver, &give);
}

TEST(test_is_not_held_up_for_long)
{
    struct give give = new_give();
    struct giver giver = BEGIN(ANSWER, SILENT, ANSWER, SILENT);
    _cleanup_fd_ int file = open_dir();
    double begins;
    struct seen seen;

    assert_int_equal(give_to(&give, file, SOMEBODY, GROUP), 0);
    begins = seconds();
    assert_int_equal(give_to(&give, file, SOMEBODY, GROUP), -ENOLINK);
    assert_true(seconds() - begins > 2 && seconds() - begins < 6);
    /* It is not asked again, for half a minute. */
    begins = seconds();
    for (int i = 0; i < 10; i++)
        assert_int_equal(give_to(&give, file, SOMEBODY, GROUP), -ENOLINK);
    assert_true(seconds() - begins < 1);
    assert_true(saw(&giver, &seen) && saw(&giver, &seen) && !saw(&giver, &seen));
    assert_true(give.silent_until > (uint64_t)((begins + 20) * 1e6));
    assert_true(give.silent_until < (uint64_t)((begins + 31) * 1e6));
    give.silent_until = (uint64_t)(begins * 1e6);
    assert_int_equal(give_to(&give, file, SOMEBODY, GROUP), 0);
    /* The first is waited for longer, for systemd has to start it. */
    give.answered = false;
    begins = seconds();
    assert_int_equal(give_to(&give, file, SOMEBODY, GROUP), -ENOLINK);
    assert_true(seconds() - begins > 6 && seconds() - begins < 14);
    end(&giver, &give);
}

TEST(test_says_what_to_do)
{
    struct give give = new_give();
    _cleanup_fd_ int file = open_dir();

    assert_int_equal(give_to(&give, file, SOMEBODY, GROUP), -ENOLINK); /* nothing is there */
    assert_non_null(strstr(give_why(-ENOLINK), "vmferry-giver"));
    assert_non_null(strstr(give_why(-ENOLINK), "systemctl status vmferry-giver.socket"));
    assert_string_equal(give_why(-EPERM), strerror(EPERM));
}

/* While it is of the broker's own group, a directory has no right for a group. */
TEST(test_directory_is_nobody_s_on_its_way)
{
    const struct socket_owner owners[] = {
        {.uid = SOMEBODY, .gid = GROUP, .group = true},
        {.uid = SOMEBODY, .gid = (gid_t)-1},
    };
    char made[96];

    if (geteuid() != 0)
        skip();
    for (size_t i = 0; i < ELEMENTS(owners); i++) {
        struct give give = new_give();
        struct giver giver = BEGIN(GIVE, GIVE);
        struct seen seen;
        struct stat st;

        snprintf(made, sizeof(made), "%s/made", dir);
        assert_int_equal(qemu_socket_make_directory(made, &owners[i], &give), 0);
        assert_int_equal(stat(made, &st), 0);
        assert_int_equal(st.st_uid, SOMEBODY);
        assert_int_equal(st.st_gid, owners[i].group ? GROUP : getegid());
        assert_int_equal(st.st_mode & 07777, owners[i].group ? 0770 : 0700);
        while (saw(&giver, &seen))
            assert_int_equal(seen.st.st_mode & 07777, seen.st.st_gid == GROUP ? 0770 : 0700);
        assert_int_equal(seen.request.uid, SOMEBODY);
        end(&giver, &give);
        assert_int_equal(rmdir(made), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_asks),
        CASE(test_takes_no_answer_that_is_none),
        CASE(test_asks_another_once),
        CASE(test_sees_what_is_done),
        CASE(test_is_not_held_up_for_long),
        CASE(test_says_what_to_do),
        CASE(test_directory_is_nobody_s_on_its_way),
    };
    int r;

    umask(077);
    if (!mkdtemp(dir))
        return 1;
    snprintf(path, sizeof(path), "%s/giver", dir);
    r = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(dir);
    return r;
}
