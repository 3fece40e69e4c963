/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "broker/net/endpoint.h"
#include "common/cleanup.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/stat.h>

/* Endpoints that are listened on, announced and dialled, with real sockets. */

static void parse(const char *text, struct endpoint *ret)
{
    const char *why = endpoint_parse(text, ret);

    if (why)
        fail_msg("%s: %s", text, why);
}

/* Connects to an endpoint, says a word and sees it arrive at the listener. */
static void expect_reachable(const char *text, int listener)
{
    struct endpoint endpoint;
    struct pollfd p;
    int fd, there = -1;
    char buf[8];

    parse(text, &endpoint);
    fd = endpoint_connect(&endpoint);
    if (fd < 0)
        fail_msg("%s: %s", text, strerror(-fd));
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    p = (struct pollfd){.fd = fd, .events = POLLOUT};
    assert_int_equal(poll(&p, 1, 5000), 1);
    assert_int_equal(endpoint_connected(fd), 0);
    assert_int_equal(write(fd, "word", 4), 4);
    /* Who looks whether a UNIX socket is in use leaves a connection without a word in its queue. */
    for (ssize_t n = 0; n == 0;) {
        p = (struct pollfd){.fd = listener, .events = POLLIN};
        assert_int_equal(poll(&p, 1, 5000), 1);
        fd_closep(&there);
        there = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        assert_true(there >= 0);
        n = read(there, buf, sizeof(buf));
        assert_true(n == 0 || n == 4);
    }
    close(fd);
    close(there);
}

static int listen_on(const char *text)
{
    struct endpoint endpoint;
    int fd;

    parse(text, &endpoint);
    fd = endpoint_listen(&endpoint);
    if (fd >= 0) {
        int on = 0;
        socklen_t size = sizeof(on);

        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
        assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &size), 0);
        assert_int_equal(on, 1);
    }
    return fd;
}

TEST(test_tcp)
{
    static const char *const hosts[] = {"tcp:127.0.0.1:0", "tcp:[::1]:0"};

    for (size_t i = 0; i < ELEMENTS(hosts); i++) {
        char announced[2][ADDRESS_TEXT_MAX];
        int fd = listen_on(hosts[i]);

        if (fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL)
            continue; /* a host without IPv6 */
        assert_true(fd >= 0);
        assert_int_equal(endpoint_announce(fd, NULL, announced, 2, NULL), 1);
        assert_int_equal(strncmp(announced[0], hosts[i], strlen(hosts[i]) - 1), 0);
        expect_reachable(announced[0], fd);
        assert_int_equal(listen_on(announced[0]), -EADDRINUSE);
        close(fd);
        fd = listen_on(announced[0]); /* at once again, though connections of before wait for their end */
        assert_true(fd >= 0);
        close(fd);
    }
}

static unsigned port_of(int fd)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof(address);

    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    if (address.ss_family == AF_INET)
        return ntohs(((const struct sockaddr_in *)(const void *)&address)->sin_port);
    return ntohs(((const struct sockaddr_in6 *)(const void *)&address)->sin6_port);
}

/* What a connection to it comes to: 0 or an errno. */
static int try_connect(const char *text)
{
    struct endpoint endpoint;
    struct pollfd p = {.events = POLLOUT};
    int r;

    parse(text, &endpoint);
    p.fd = endpoint_connect(&endpoint);
    if (p.fd < 0)
        return -p.fd;
    assert_int_equal(poll(&p, 1, 5000), 1);
    r = endpoint_connected(p.fd);
    close(p.fd);
    return -r;
}

/* A dialled connection that its peer resets cannot be turned into one to elsewhere. */
TEST(test_connected_for_good)
{
    const struct linger reset = {.l_onoff = 1};
    struct sockaddr_storage elsewhere;
    socklen_t size = sizeof(elsewhere);
    struct endpoint endpoint;
    struct pollfd p = {.events = POLLOUT};
    char text[ADDRESS_TEXT_MAX];
    int listener = listen_on("tcp:127.0.0.1:0"), other = listen_on("tcp:127.0.0.1:0"), there;

    assert_int_equal(getsockname(other, (struct sockaddr *)&elsewhere, &size), 0);
    snprintf(text, sizeof(text), "tcp:127.0.0.1:%u", port_of(listener));
    parse(text, &endpoint);
    p.fd = endpoint_connect(&endpoint);
    assert_int_equal(poll(&p, 1, 5000), 1);
    assert_int_equal(endpoint_connected(p.fd), 0);
    assert_int_equal(endpoint_connected(p.fd), 0);
    there = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_int_equal(setsockopt(there, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
    close(there);
    p.events = POLLIN;
    assert_int_equal(poll(&p, 1, 5000), 1);
    /* Without endpoint_connected() the first one says ECONNRESET, and the next one connects. */
    for (int i = 0; i < 3; i++)
        assert_int_equal(sendto(p.fd, "x", 1, MSG_FASTOPEN | MSG_DONTWAIT | MSG_NOSIGNAL,
                                (struct sockaddr *)&elsewhere, size),
                         -1);
    assert_int_equal(errno, EISCONN);
    assert_int_equal(endpoint_connected(p.fd), -ECONNRESET);
    close(p.fd);
    close(listener);
    close(other);
}

/* One listener for both; where IPv6 alone is asked for, nothing comes in over IPv4. */
TEST(test_dual_stack)
{
    char text[ADDRESS_TEXT_MAX];
    int fd = listen_on("tcp:*:0");

    assert_true(fd >= 0);
    snprintf(text, sizeof(text), "tcp:127.0.0.1:%u", port_of(fd));
    expect_reachable(text, fd);
    snprintf(text, sizeof(text), "tcp:[::1]:%u", port_of(fd));
    expect_reachable(text, fd);
    close(fd);

    fd = listen_on("tcp:[::]:0");
    assert_true(fd >= 0);
    snprintf(text, sizeof(text), "tcp:[::1]:%u", port_of(fd));
    expect_reachable(text, fd);
    snprintf(text, sizeof(text), "tcp:127.0.0.1:%u", port_of(fd));
    assert_int_equal(try_connect(text), ECONNREFUSED);
    close(fd);
}

TEST(test_announce_all)
{
    char announced[64][ADDRESS_TEXT_MAX];
    int fd = listen_on("tcp:*:0");
    size_t n;

    assert_true(fd >= 0);
    n = endpoint_announce(fd, NULL, announced, ELEMENTS(announced), NULL);
    assert_true(n >= 1);
    for (size_t i = 0; i < n; i++) {
        assert_null(strstr(announced[i], "[::]"));
        assert_null(strstr(announced[i], "0.0.0.0"));
        assert_null(strstr(announced[i], "[fe80"));
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(announced[i], announced[j]);
        expect_reachable(announced[i], fd);
    }
    assert_int_equal(endpoint_announce(fd, NULL, announced, 1, NULL), 1);
    assert_int_equal(endpoint_announce(fd, NULL, announced, 0, NULL), 0);
    close(fd);

    fd = listen_on("tcp:0.0.0.0:0");
    assert_true(fd >= 0);
    n = endpoint_announce(fd, NULL, announced, ELEMENTS(announced), NULL);
    assert_true(n >= 1);
    for (size_t i = 0; i < n; i++) {
        assert_null(strchr(announced[i], '['));
        expect_reachable(announced[i], fd);
    }
    close(fd);
    assert_int_equal(endpoint_announce(-1, NULL, announced, 1, NULL), 0);
}

TEST(test_announce_says_what_has_no_room)
{
    char announced[64][ADDRESS_TEXT_MAX], first[1][ADDRESS_TEXT_MAX];
    struct endpoints_left left = {0};
    int fd = listen_on("tcp:*:0");
    size_t n = endpoint_announce(fd, NULL, announced, ELEMENTS(announced), &left);

    assert_int_equal(left.n, 0);
    assert_int_equal(endpoint_announce(fd, NULL, first, 1, &left), 1);
    assert_string_equal(first[0], announced[0]);
    assert_int_equal(left.n, n - 1);
    if (n > 1)
        assert_non_null(strstr(left.names, announced[1]));
    close(fd);
}

TEST(test_own_addresses_are_not_dialled)
{
    char mixed[4][ADDRESS_TEXT_MAX] = {"tcp:127.0.0.1:16520", "tcp:192.0.2.7:16520", "unix:/run/x",
                                       "tcp:127.0.0.1:1"},
         here[2][ADDRESS_TEXT_MAX] = {"tcp:127.0.0.1:16520", "unix:/run/x"},
         own[1][ADDRESS_TEXT_MAX] = {"tcp:127.0.0.1:16520"};

    assert_int_equal(endpoint_remove_own(mixed, 4), 2);
    assert_string_equal(mixed[0], "tcp:192.0.2.7:16520");
    assert_string_equal(mixed[1], "unix:/run/x");
    assert_int_equal(endpoint_remove_own(here, 2), 2); /* both sides are on one host */
    assert_string_equal(here[0], "tcp:127.0.0.1:16520");
    assert_int_equal(endpoint_remove_own(own, 1), 1);
    assert_string_equal(own[0], "tcp:127.0.0.1:16520");
}

/* Whatever is announced must be what the other side can dial. */
TEST(test_announce_vsock)
{
    char announced[4][ADDRESS_TEXT_MAX];
    struct endpoint endpoint;
    int fd = listen_on("vsock:*:47113");
    size_t n;

    if (fd < 0)
        skip(); /* no vsock here */
    n = endpoint_announce(fd, NULL, announced, ELEMENTS(announced), NULL);
    close(fd);
    for (size_t i = 0; i < n; i++)
        if (endpoint_parse(announced[i], &endpoint))
            fail_msg("'%s' is announced", announced[i]);
}

TEST(test_refused)
{
    char text[1][ADDRESS_TEXT_MAX];
    int fd = listen_on("tcp:127.0.0.1:0");

    assert_true(fd >= 0);
    assert_int_equal(endpoint_announce(fd, NULL, text, 1, NULL), 1);
    close(fd);
    assert_int_equal(try_connect(text[0]), ECONNREFUSED);
}

/* A socket receives as much as the kernel gives unasked, and wakes its reader at the first byte. */
static void expect_room(int fd)
{
    int least = 0, usual = 0, most = 0, size = 0, mark = 0;
    socklen_t len = sizeof(size);
    FILE *limits = fopen("/proc/sys/net/ipv4/tcp_rmem", "re");

    assert_non_null(limits);
    assert_int_equal(fscanf(limits, "%d %d %d", &least, &usual, &most), 3);
    fclose(limits);
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, &len), 0);
    assert_true(size >= (most / 2 < 4 << 20 ? most / 2 : 4 << 20));
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &mark, &len), 0);
    assert_int_equal(mark, 1);
}

TEST(test_tune)
{
    struct endpoint endpoint;
    char text[1][ADDRESS_TEXT_MAX];
    int fd = listen_on("tcp:127.0.0.1:0"), client, on = 0, pair[2];
    socklen_t size = sizeof(on);

    assert_true(fd >= 0);
    endpoint_announce(fd, NULL, text, 1, NULL);
    parse(text[0], &endpoint);
    client = endpoint_connect(&endpoint);
    assert_true(client >= 0);
    assert_int_equal(getsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, &size), 0);
    assert_int_equal(on, 1);
    on = 0;
    assert_int_equal(getsockopt(client, SOL_SOCKET, SO_KEEPALIVE, &on, &size), 0);
    assert_int_equal(on, 1);
    expect_room(client);
    close(client);
    close(fd);
    test_pair(SOCK_STREAM, 0, pair);
    endpoint_tune(pair[0]); /* harmless on what is not TCP */
    close(pair[0]);
    close(pair[1]);
}

static char directory[] = "/tmp/vmferry-test-endpoint.XXXXXX";

static int make_directory(void **state)
{
    (void)state;
    return mkdtemp(directory) ? 0 : -1;
}

static int remove_directory(void **state)
{
    static const char *const names[] = {"a", "b"};

    (void)state;
    /* What a case that failed has left. */
    for (size_t i = 0; i < ELEMENTS(names); i++) {
        char path[108];

        snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
        unlink(path);
    }
    return rmdir(directory);
}

static void path_of(const char *name, char path[static 108], char text[static ADDRESS_TEXT_MAX])
{
    snprintf(path, 108, "%s/%s", directory, name);
    snprintf(text, ADDRESS_TEXT_MAX, "unix:%s", path);
}

TEST(test_unix)
{
    char path[108], text[ADDRESS_TEXT_MAX], announced[1][ADDRESS_TEXT_MAX];
    struct endpoint endpoint;
    struct stat st;
    int fd;

    path_of("a", path, text);
    fd = listen_on(text);
    assert_true(fd >= 0);
    assert_int_equal(endpoint_announce(fd, NULL, announced, 1, NULL), 1);
    assert_string_equal(announced[0], text);
    expect_reachable(text, fd);
    assert_int_equal(listen_on(text), -EADDRINUSE); /* in use */
    expect_reachable(text, fd);                     /* and still is */
    close(fd);
    parse(text, &endpoint);
    assert_int_equal(endpoint_connect(&endpoint), -ECONNREFUSED);
    fd = listen_on(text); /* stale: is removed */
    assert_true(fd >= 0);
    expect_reachable(text, fd);
    close(fd);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(endpoint_connect(&endpoint), -ENOENT);

    /* Only a socket is ever removed: no file, no link to a socket. */
    fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(listen_on(text), -EADDRINUSE);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(unlink(path), 0);
}

TEST(test_unix_link)
{
    char path[108], text[ADDRESS_TEXT_MAX], other[108], other_text[ADDRESS_TEXT_MAX];
    struct stat st;
    int fd;

    path_of("a", path, text);
    path_of("b", other, other_text);
    fd = listen_on(text);
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(symlink(path, other), 0);
    assert_int_equal(listen_on(other_text), -EADDRINUSE);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(unlink(other), 0);
    assert_int_equal(unlink(path), 0);
}

/* A socket of another kind, or one whose queue is full, is in use too. */
TEST(test_unix_in_use)
{
    char path[108], text[ADDRESS_TEXT_MAX];
    struct endpoint endpoint;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), clients[8];
    size_t n = 0;

    path_of("a", path, text);
    parse(text, &endpoint);
    assert_int_equal(bind(fd, (const struct sockaddr *)&endpoint.address, endpoint.size), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(listen_on(text), -EADDRINUSE);
    close(fd);
    assert_int_equal(unlink(path), 0);

    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&endpoint.address, endpoint.size), 0);
    assert_int_equal(listen(fd, 1), 0);
    while (n < ELEMENTS(clients) && (clients[n] = endpoint_connect(&endpoint)) >= 0)
        n++;
    assert_between(n, 1, ELEMENTS(clients) - 1);
    assert_int_equal(clients[n], -EAGAIN);
    assert_int_equal(listen_on(text), -EADDRINUSE);
    while (n > 0)
        close(clients[--n]);
    close(fd);
    assert_int_equal(unlink(path), 0);
}

TEST(test_unix_no_directory)
{
    char path[108], text[ADDRESS_TEXT_MAX];

    path_of("none/a", path, text);
    assert_int_equal(listen_on(text), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_tcp),
        CASE(test_dual_stack),
        CASE(test_connected_for_good),
        CASE(test_announce_all),
        CASE(test_announce_says_what_has_no_room),
        CASE(test_own_addresses_are_not_dialled),
        CASE(test_announce_vsock),
        CASE(test_refused),
        CASE(test_tune),
        CASE(test_unix),
        CASE(test_unix_link),
        CASE(test_unix_in_use),
        CASE(test_unix_no_directory),
    };

    return cmocka_run_group_tests_name("endpoint-sockets", tests, make_directory, remove_directory);
}
