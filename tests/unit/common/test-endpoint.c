/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "common/address.h"

static const struct {
    const char *text;
    const char *written; /* as address_format() writes it */
    bool any;
} good[] = {
    {"tcp:192.0.2.1:1", "tcp:192.0.2.1:1", false},
    {"tcp:192.0.2.1", "tcp:192.0.2.1:16520", false},
    {"tcp:192.0.2.1:65535", "tcp:192.0.2.1:65535", false},
    {"tcp:0.0.0.0:0", "tcp:0.0.0.0:0", false},
    {"tcp:[2001:db8::1]:16520", "tcp:[2001:db8::1]:16520", false},
    {"tcp:[2001:db8::1]", "tcp:[2001:db8::1]:16520", false},
    {"tcp:[::1]:0", "tcp:[::1]:0", false},
    {"tcp:[2001:0db8:0000::0001]:7", "tcp:[2001:db8::1]:7", false},
    {"tcp:[fe80::1%lo]:5", "tcp:[fe80::1%1]:5", false},
    {"tcp:[fe80::1%77]:5", "tcp:[fe80::1%77]:5", false},
    {"tcp:*", "tcp:[::]:16520", true},
    {"tcp:*:99", "tcp:[::]:99", true},
    {"unix:/run/x", "unix:/run/x", false},
    {"unix:/a b:c", "unix:/a b:c", false},
    {"vsock:3:16520", "vsock:3:16520", false},
    {"vsock:3", "vsock:3:16520", false},
    {"vsock:4294967294:4294967294", "vsock:4294967294:4294967294", false},
    {"vsock:*", "vsock:4294967295:16520", true},
    {"vsock:*:9", "vsock:4294967295:9", true},
};

static const char *const bad[] = {
    "",
    "tcp",
    "tcp:",
    "TCP:192.0.2.1:1",
    "192.0.2.1:1",
    "tcp://192.0.2.1:1",
    "tcp: 192.0.2.1:1",
    "tcp:192.0.2.1 :1",
    "tcp:192.0.2.1:",
    "tcp:192.0.2.1:65536",
    "tcp:192.0.2.1:-1",
    "tcp:192.0.2.1:+1",
    "tcp:192.0.2.1: 1",
    "tcp:192.0.2.1:1 ",
    "tcp:192.0.2.1:0x10",
    "tcp:192.0.2.1:1:2",
    "tcp:192.0.2.1:99999999999",
    "tcp:192.0.2.1:18446744073709551617",
    "tcp:192.0.2.1:http",
    "tcp:192.0.2:1",
    "tcp:192.0.2.256:1",
    "tcp:1:1",
    "tcp:localhost:1",
    "tcp:example.org",
    "tcp::1",
    "tcp:::1",
    "tcp:2001:db8::1:1",
    "tcp:[]",
    "tcp:[]:1",
    "tcp:[",
    "tcp:[::1",
    "tcp:[::1]1",
    "tcp:[::1]:",
    "tcp:[::1]x:1",
    "tcp:[::1]]:1",
    "tcp:[[::1]]:1",
    "tcp:[192.0.2.1]:1",
    "tcp:[*]:1",
    "tcp:[*]",
    "tcp:[fe80::1%]:1",
    "tcp:[fe80::1%no-such-interface]:1",
    "tcp:[fe80::1%-1]:1",
    "tcp:[fe80::1%4294967296]:1",
    "tcp:[%lo]:1",
    "tcp:**:1",
    "tcp:*x:1",
    "tcp:*:",
    "tcp:0000000000000000000000000000000000000000000000000000000000000000192.0.2.1:1",
    "unix",
    "unix:",
    "unix:run/x",
    "unix:@x",
    "unix:./x",
    "unix:/x\n",
    "unix:/\xc2\x9b",
    "unix:/\xe2\x80\xaetxt",
    "unix:/\xff",
    "vsock",
    "vsock:",
    "vsock::1",
    "vsock:3:",
    "vsock:x:1",
    "vsock:-1:1",
    "vsock:3:x",
    "vsock:3:1:1",
    "vsock:4294967295:1",
    "vsock:4294967296:1",
    "vsock:3:4294967295",
    "vsock:**",
    "vsock:11111111111111111111:1",
    "fd:3",
    "exec:/bin/sh",
    "udp:192.0.2.1:1",
};

TEST(test_good)
{
    for (size_t i = 0; i < ELEMENTS(good); i++) {
        struct endpoint endpoint, again;
        char text[ADDRESS_TEXT_MAX];
        const char *why = endpoint_parse(good[i].text, &endpoint);

        if (why)
            fail_msg("%s: %s", good[i].text, why);
        address_format(&endpoint.address, endpoint.size, text);
        assert_string_equal(text, good[i].written);
        assert_int_equal(endpoint.any, good[i].any);
        if (good[i].any)
            continue;
        /* What is written parses to the same: tickets carry it. */
        assert_null(endpoint_parse(text, &again));
        assert_int_equal(again.size, endpoint.size);
        assert_memory_equal(&again.address, &endpoint.address, endpoint.size);
    }
}

TEST(test_bad)
{
    for (size_t i = 0; i < ELEMENTS(bad); i++) {
        struct endpoint endpoint;

        if (!endpoint_parse(bad[i], &endpoint))
            fail_msg("'%s' was taken", bad[i]);
    }
}

TEST(test_path_length)
{
    struct endpoint endpoint;
    char text[200] = "unix:/";

    memset(text + 6, 'x', 106);
    assert_null(endpoint_parse(text, &endpoint)); /* 107 bytes and the NUL */
    text[112] = 'x';
    assert_string_equal(endpoint_parse(text, &endpoint), "the path is longer than 107 bytes");
    memset(text + 6, 'x', 193);
    text[199] = '\0';
    assert_string_equal(endpoint_parse(text, &endpoint), "it is longer than 127 bytes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_good),
        CASE(test_bad),
        CASE(test_path_length),
    };

    return cmocka_run_group_tests_name("endpoint", tests, NULL, NULL);
}
