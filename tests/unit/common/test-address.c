/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "common/address.h"

#include <arpa/inet.h>

static void expect(const union any_address *a, size_t size, const char *want)
{
    char text[ADDRESS_TEXT_MAX];

    memset(text, 'x', sizeof(text));
    address_format(&a->storage, (socklen_t)size, text);
    assert_string_equal(text, want);
}

TEST(test_ipv4)
{
    union any_address a = {.in = {.sin_family = AF_INET, .sin_port = htons(16520)}};

    inet_pton(AF_INET, "192.0.2.1", &a.in.sin_addr);
    expect(&a, sizeof(a.in), "tcp:192.0.2.1:16520");
}

TEST(test_ipv6)
{
    static const char *const hosts[][2] = {
        {"2001:db8::1", "tcp:[2001:db8::1]:65535"},
        {"::", "tcp:[::]:65535"},
        {"::ffff:192.0.2.1", "tcp:192.0.2.1:65535"}, /* as a dual-stack listener sees it */
        {"2001:db8:1111:2222:3333:4444:5555:6666", "tcp:[2001:db8:1111:2222:3333:4444:5555:6666]:65535"},
    };

    for (size_t i = 0; i < ELEMENTS(hosts); i++) {
        union any_address a = {.in6 = {.sin6_family = AF_INET6, .sin6_port = htons(65535)}};

        assert_int_equal(inet_pton(AF_INET6, hosts[i][0], &a.in6.sin6_addr), 1);
        expect(&a, sizeof(a.in6), hosts[i][1]);
    }
}

TEST(test_ipv6_scope)
{
    union any_address a = {.in6 = {.sin6_family = AF_INET6, .sin6_port = htons(1), .sin6_scope_id = 7}};

    inet_pton(AF_INET6, "fe80::1", &a.in6.sin6_addr);
    expect(&a, sizeof(a.in6), "tcp:[fe80::1%7]:1");
}

TEST(test_unix)
{
    union any_address a = {.un = {.sun_family = AF_UNIX, .sun_path = "/run/x.sock"}};
    char want[5 + 108 + 1];

    expect(&a, sizeof(a.un), "unix:/run/x.sock");
    expect(&a, offsetof(struct sockaddr_un, sun_path) + 4, "unix:/run"); /* the kernel gives no NUL there */
    expect(&a, sizeof(sa_family_t), "unix:");                            /* unnamed */
    a.un.sun_path[0] = '\0';
    expect(&a, sizeof(a.un), "unix:"); /* abstract */

    /* A path that fills the field has no NUL. */
    memset(a.un.sun_path, 'a', sizeof(a.un.sun_path));
    memcpy(want, "unix:", 5);
    memset(want + 5, 'a', 108);
    want[5 + 108] = '\0';
    expect(&a, sizeof(a.un), want);
}

TEST(test_vsock)
{
    union any_address a = {.vm = {.svm_family = AF_VSOCK, .svm_cid = 3, .svm_port = UINT32_MAX}};

    expect(&a, sizeof(a.vm), "vsock:3:4294967295");
}

TEST(test_unknown)
{
    union any_address a = {.any = {.sa_family = AF_NETLINK}};

    expect(&a, sizeof(a.storage), "unknown");
}

TEST(test_of_peer)
{
    union any_address a = {.in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof(a.in);
    char text[ADDRESS_TEXT_MAX], want[ADDRESS_TEXT_MAX];
    int pair[2], listener, fd;

    test_pair(SOCK_STREAM, 0, pair);
    address_of_peer(pair[0], text);
    assert_string_equal(text, "unix:");
    close(pair[0]);
    close(pair[1]);
    address_of_peer(-1, text);
    assert_string_equal(text, "unknown");

    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(listener >= 0 && fd >= 0);
    address_of_peer(fd, text);
    assert_string_equal(text, "unknown"); /* connected to nobody */
    assert_int_equal(bind(listener, &a.any, size), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, &a.any, &size), 0);
    assert_int_equal(connect(fd, &a.any, size), 0);
    address_of_peer(fd, text);
    snprintf(want, sizeof(want), "tcp:127.0.0.1:%u", ntohs(a.in.sin_port));
    assert_string_equal(text, want);
    close(fd);
    close(listener);
}

TEST(test_unix_is_printable)
{
    union any_address a = {.un = {.sun_family = AF_UNIX}};

    strcpy(a.un.sun_path, "x\nvmferryd: done.\x1b[2J\xc2\x9b\xff\xe2\x80\xaez");
    expect(&a, sizeof(a.un), "unix:x?vmferryd: done.?[2J???z");
    /* All bytes that a path can have, each of them bad. */
    memset(a.un.sun_path, 0xff, sizeof(a.un.sun_path));
    char text[ADDRESS_TEXT_MAX];
    address_format(&a.storage, sizeof(a.un), text);
    assert_int_equal(strlen(text), 5 + sizeof(a.un.sun_path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_ipv4),  CASE(test_ipv6),    CASE(test_ipv6_scope), CASE(test_unix),
        CASE(test_vsock), CASE(test_unknown), CASE(test_of_peer),    CASE(test_unix_is_printable),
    };

    return cmocka_run_group_tests_name("address", tests, NULL, NULL);
}
