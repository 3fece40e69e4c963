/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "common/cleanup.h"
#include "common/fd-pass.h"
#include "common/give.h"
#include "giver/giver.h"

#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/un.h>

/* The giver behind a socket, and files of every kind. Changing owners takes root. */

enum { SOMEBODY = 4711, GROUP = 4712 };

static char dir[] = "/tmp/vmf-giver-XXXXXX";

/* Sends one datagram, lets the giver serve until the other side has gone; what it returns. */
static int serve(const void *request, size_t size, const int *fds, size_t n_fds, struct give_reply *ret)
{
    int pair[2], r;

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
    assert_int_equal(fd_pass_send(pair[0], request, size, fds, n_fds), 0);
    assert_int_equal(shutdown(pair[0], SHUT_WR), 0);
    r = giver_serve(pair[1]);
    if (r >= 0)
        assert_int_equal(recv(pair[0], ret, sizeof(*ret), MSG_DONTWAIT), sizeof(*ret));
    else
        assert_int_equal(recv(pair[0], ret, sizeof(*ret), MSG_DONTWAIT), -1);
    close(pair[0]);
    close(pair[1]);
    return r;
}

static int give(int fd, uid_t uid, gid_t gid)
{
    const struct give_request request = {.version = GIVE_VERSION, .uid = uid, .gid = gid};
    struct give_reply reply;

    assert_int_equal(serve(&request, sizeof(request), &fd, 1, &reply), 0);
    return reply.error;
}

static int open_made(const char *name)
{
    int at = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC),
        fd = openat(at, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

    assert_true(fd >= 0);
    close(at);
    return fd;
}

static int make_socket(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    mode_t mask;

    snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", dir, name);
    mask = umask(0177);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    umask(mask);
    close(fd);
    return open_made(name);
}

/* A connected TCP socket's two ends, and what listens, as O_PATH cannot have them. */
static void open_tcp(int fds[static 3])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);

    fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fds[0], (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(fds[0], 1), 0);
    assert_int_equal(getsockname(fds[0], (struct sockaddr *)&address, &size), 0);
    fds[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fds[1], (struct sockaddr *)&address, size), 0);
    fds[2] = accept4(fds[0], NULL, NULL, SOCK_CLOEXEC);
    assert_true(fds[2] >= 0);
}

static void expect_owner(int fd, uid_t uid, gid_t gid, mode_t mode)
{
    struct stat st;

    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_uid, uid);
    assert_int_equal(st.st_gid, gid);
    assert_int_equal(st.st_mode & 07777, mode);
}

TEST(test_gives_sockets_and_directories)
{
    _cleanup_fd_ int socket = make_socket("socket"), directory = -1;
    int at = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

    assert_int_equal(mkdirat(at, "directory", 0700), 0);
    close(at);
    directory = open_made("directory");
    assert_int_equal(fchmodat(AT_FDCWD, dir, 0700, 0), 0);
    assert_int_equal(give(directory, SOMEBODY, GROUP), 0);
    expect_owner(directory, SOMEBODY, GROUP, 0700);
    assert_int_equal(give(socket, SOMEBODY, (gid_t)-1), 0);
    expect_owner(socket, SOMEBODY, getegid(), 0600);
}

TEST(test_keeps_what_is_somebody_else_s)
{
    _cleanup_fd_ int socket = make_socket("foreign");

    assert_int_equal(give(socket, SOMEBODY, (gid_t)-1), 0);
    assert_int_equal(give(socket, 0, (gid_t)-1), -EPERM);
    assert_int_equal(give(socket, SOMEBODY, GROUP), -EPERM);
    expect_owner(socket, SOMEBODY, getegid(), 0600);
}

TEST(test_gives_nothing_else)
{
    char path[64];
    _cleanup_fd_ int file = -1, link = -1, made = make_socket("nobody");
    _cleanup_fd_ int null = open("/dev/null", O_PATH | O_CLOEXEC);

    snprintf(path, sizeof(path), "%s/file", dir);
    file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    snprintf(path, sizeof(path), "%s/link", dir);
    assert_int_equal(symlink("file", path), 0);
    link = open_made("link");
    assert_int_equal(give(file, SOMEBODY, GROUP), -EPERM);
    assert_int_equal(give(link, SOMEBODY, GROUP), -EPERM);
    assert_int_equal(give(null, SOMEBODY, GROUP), -EPERM);
    expect_owner(file, 0, 0, 0600);
    assert_int_equal(give(made, (uid_t)-1, GROUP), -EINVAL);
}

TEST(test_gives_no_open_socket)
{
    int fds[4];
    struct stat st;

    open_tcp(fds);
    fds[3] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    for (size_t i = 0; i < ELEMENTS(fds); i++) {
        assert_int_equal(fchmod(fds[i], 0600), 0); /* so that its mode is not why */
        assert_int_equal(give(fds[i], SOMEBODY, GROUP), -EPERM);
        assert_int_equal(fstat(fds[i], &st), 0);
        assert_int_equal(st.st_uid, 0);
        close(fds[i]);
    }
}

TEST(test_gives_only_what_others_have_nothing_of)
{
    static const mode_t modes[] = {04600, 02600, 01600, 0604, 0602, 0601, 0666};
    int at = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    _cleanup_fd_ int socket = make_socket("mode"), directory = -1;

    assert_int_equal(mkdirat(at, "modes", 0700), 0);
    directory = open_made("modes");
    for (size_t i = 0; i < ELEMENTS(modes); i++) {
        assert_int_equal(fchmodat(at, "mode", modes[i], 0), 0);
        assert_int_equal(fchmodat(at, "modes", modes[i], 0), 0);
        assert_int_equal(give(socket, SOMEBODY, GROUP), -EPERM);
        assert_int_equal(give(directory, SOMEBODY, GROUP), -EPERM);
        expect_owner(socket, 0, 0, modes[i]);
        expect_owner(directory, 0, 0, modes[i]);
    }
    assert_int_equal(fchmodat(at, "mode", 0660, 0), 0);
    assert_int_equal(fchmodat(at, "modes", 0770, 0), 0);
    assert_int_equal(give(socket, SOMEBODY, GROUP), 0);
    assert_int_equal(give(directory, SOMEBODY, GROUP), 0);
    close(at);
}

TEST(test_gives_no_socket_of_two_names)
{
    int at = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    _cleanup_fd_ int socket = make_socket("one");

    assert_int_equal(linkat(at, "one", at, "two", 0), 0);
    assert_int_equal(give(socket, SOMEBODY, GROUP), -EPERM);
    assert_int_equal(unlinkat(at, "two", 0), 0);
    assert_int_equal(unlinkat(at, "one", 0), 0);
    assert_int_equal(give(socket, SOMEBODY, GROUP), -EPERM);
    expect_owner(socket, 0, 0, 0600);
    close(at);
}

TEST(test_refuses_what_is_no_request)
{
    struct give_request request = {.version = GIVE_VERSION, .uid = SOMEBODY, .gid = GROUP};
    struct give_reply reply;
    char longer[sizeof(request) + 1] = {0};
    int fds[] = {make_socket("unasked")};

    memcpy(longer, &request, sizeof(request));
    assert_int_equal(serve(&request, sizeof(request), NULL, 0, &reply), -EBADMSG);
    assert_int_equal(serve(&request, sizeof(request) - 1, fds, 1, &reply), -EBADMSG);
    assert_int_equal(serve(longer, sizeof(longer), fds, 1, &reply), -EBADMSG);
    request.version++;
    assert_int_equal(serve(&request, sizeof(request), fds, 1, &reply), -EBADMSG);
    expect_owner(fds[0], 0, 0, 0600);
    close(fds[0]);
}

static void remove_all(void)
{
    static const char *const names[] = {"socket",  "directory", "foreign", "file", "link", "nobody",
                                        "unasked", "mode",      "modes",   "one",  "two"};
    int at = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);

    for (size_t i = 0; i < ELEMENTS(names); i++)
        if (unlinkat(at, names[i], 0) < 0)
            unlinkat(at, names[i], AT_REMOVEDIR);
    close(at);
    rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_gives_sockets_and_directories),
        CASE(test_keeps_what_is_somebody_else_s),
        CASE(test_gives_nothing_else),
        CASE(test_gives_no_open_socket),
        CASE(test_gives_only_what_others_have_nothing_of),
        CASE(test_gives_no_socket_of_two_names),
        CASE(test_refuses_what_is_no_request),
    };
    int r;

    if (geteuid() != 0) {
        puts("1..0 # SKIP needs root");
        return 0;
    }
    umask(022);
    if (!mkdtemp(dir))
        return 1;
    r = cmocka_run_group_tests(tests, NULL, NULL);
    remove_all();
    return r;
}
