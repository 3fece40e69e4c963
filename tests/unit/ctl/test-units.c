/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "ctl/bus/bus-socket.h"
#include "ctl/units.h"

TEST(test_sizes)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},
        {"1", 1},
        {"1000", 1000},
        {"1K", 1024},
        {"1.5M", 1536 * 1024},
        {"0.5K", 512},
        {"100M", (uint64_t)100 << 20},
        {"2G", (uint64_t)2 << 30},
        {"3T", (uint64_t)3 << 40},
        {"1.000000001K", 1024},
        {"9223372036854775807", 0}, /* too many digits, see below */
    };
    static const char *const bad[] = {
        "",    "M",   "-1",   "+1",   " 1",  "1 ",  "1KiBs",    "1KB",
        "1.M", ".5M", "1..5", "0x10", "1e6", "1M5", "8388608T", "99999999999999999999"};
    uint64_t v;

    for (size_t i = 0; i + 1 < ELEMENTS(good); i++) {
        assert_true(parse_size(good[i].text, &v));
        assert_int_equal(v, good[i].bytes);
    }
    assert_false(parse_size(good[ELEMENTS(good) - 1].text, &v));
    for (size_t i = 0; i < ELEMENTS(bad); i++)
        assert_false(parse_size(bad[i], &v));
}

TEST(test_times)
{
    static const struct {
        const char *text;
        uint64_t usec;
    } good[] = {{"0", 0},   {"1", 1000000},      {"1.5", 1500000},     {"90s", 90000000}, {"300ms", 300000},
                {"7us", 7}, {"2min", 120000000}, {"24h", 86400000000}, {"0.25ms", 250}};
    static const char *const bad[] = {"",   "s",    "-1", "25h", "1 5", "1 s 5", "24h 1s",
                                      "1 ", "1  s", "1m", "1d",  "1S",  "86401", "999999999999999999"};
    uint64_t v;

    for (size_t i = 0; i < ELEMENTS(good); i++) {
        assert_true(parse_time(good[i].text, &v));
        assert_int_equal(v, good[i].usec);
    }
    for (size_t i = 0; i < ELEMENTS(bad); i++)
        assert_false(parse_time(bad[i], &v));
}

TEST(test_numbers)
{
    uint64_t v;

    assert_true(parse_number("1", 1, 255, &v) && v == 1);
    assert_true(parse_number("255", 1, 255, &v) && v == 255);
    assert_false(parse_number("0", 1, 255, &v));
    assert_false(parse_number("256", 1, 255, &v));
    assert_false(parse_number("", 0, 255, &v));
    assert_false(parse_number("1a", 0, 255, &v));
    assert_false(parse_number("0000000000000000001", 0, 255, &v));
}

static void expect_size(uint64_t bytes, const char *want)
{
    char text[UNITS_TEXT_MAX];

    format_size(bytes, text);
    assert_string_equal(text, want);
}

/* What was not reached is never said. */
TEST(test_size_texts)
{
    expect_size(0, "0 B");
    expect_size(1023, "1023 B");
    expect_size(1024, "1.0 KiB");
    expect_size(1024 * 1024 - 1, "1023 KiB");
    expect_size((uint64_t)100 << 20, "100 MiB");
    expect_size(((uint64_t)100 << 20) - 1, "99.9 MiB");
    expect_size((uint64_t)3 << 39, "1.5 TiB");
    expect_size(UINT64_MAX, "15.9 EiB");
}

static void expect_time(uint64_t usec, const char *want)
{
    char text[UNITS_TEXT_MAX];

    format_time(usec, text);
    assert_string_equal(text, want);
}

TEST(test_what_is_printed_is_read)
{
    static const uint64_t sizes[] = {0, 1023, 1024, 100 << 20, 5LL << 30, 3LL << 40},
                          times[] = {7, 340000, 12500000, 200 * 1000000, 7500 * 1000000LL};
    char text[UNITS_TEXT_MAX + 4];
    uint64_t v;

    for (size_t i = 0; i < ELEMENTS(sizes); i++) {
        format_size(sizes[i], text);
        assert_true(parse_size(text, &v) && v == sizes[i]);
        strcat(text, "/s");
        assert_true(parse_size(text, &v) && v == sizes[i]);
    }
    for (size_t i = 0; i < ELEMENTS(times); i++) {
        format_time(times[i], text);
        assert_true(parse_time(text, &v) && v == times[i]);
    }
    assert_true(parse_size("100MiB", &v) && v == 100 << 20);
    assert_true(parse_size("100m", &v) && v == 100 << 20);
}

TEST(test_spans)
{
    char text[UNITS_TEXT_MAX];

    format_span(5, 5, text);
    assert_string_equal(text, "0 µs");
    format_span(1700000000000000, 1700000200000000, text);
    assert_string_equal(text, "3 min 20 s");
    format_span(1700000000000000, 1699996400000000, text); /* an hour back */
    assert_string_equal(text, "");
}

TEST(test_time_texts)
{
    expect_time(0, "0 µs");
    expect_time(999, "999 µs");
    expect_time(1000, "1 ms");
    expect_time(999999, "999 ms");
    expect_time(1000000, "1.0 s");
    expect_time(59999999, "59.9 s");
    expect_time(200000000, "3 min 20 s");
    expect_time((uint64_t)7500 * 1000000, "2 h 5 min");
    expect_time(UINT64_MAX, "5124095576 h 1 min");
}

TEST(test_moments)
{
    char text[UNITS_TEXT_MAX];

    setenv("TZ", "UTC", 1);
    format_moment(0, text);
    assert_string_equal(text, "-");
    format_moment((uint64_t)1795332542 * 1000000, text);
    assert_string_equal(text, "2026-11-22 07:29:02 UTC");
    format_moment(UINT64_MAX, text); /* no year that fits, or one; but a text */
    assert_true(strlen(text) < UNITS_TEXT_MAX);
}

static void expect_path(const char *address, const char *want)
{
    struct sockaddr_un ret;
    socklen_t size;

    assert_true(bus_address_parse(address, &ret, &size));
    assert_string_equal(ret.sun_path, want);
    assert_int_equal(size, offsetof(struct sockaddr_un, sun_path) + strlen(want) + 1);
}

TEST(test_bus_addresses)
{
    static const char *const bad[] = {"",
                                      "unix:",
                                      "unix:path=",
                                      "tcp:host=localhost,port=1",
                                      "unix:path=%2",
                                      "unix:path=%zz",
                                      "unix:path=a%00b",
                                      "unix:guid=1,tmpdir=/tmp",
                                      "autolaunch:"};
    struct sockaddr_un ret;
    socklen_t size;
    char text[300] = "unix:path=/";

    expect_path("unix:path=/run/bus", "/run/bus");
    expect_path("unix:guid=12,path=/run/bus,x=y", "/run/bus");
    expect_path("tcp:host=x;unix:path=/run/b%20us;unix:path=/other", "/run/b us");
    assert_true(bus_address_parse("unix:abstract=/tmp/x", &ret, &size));
    assert_int_equal(ret.sun_path[0], 0);
    assert_memory_equal(ret.sun_path + 1, "/tmp/x", 6);
    assert_int_equal(size, offsetof(struct sockaddr_un, sun_path) + 7);
    for (size_t i = 0; i < ELEMENTS(bad); i++)
        assert_false(bus_address_parse(bad[i], &ret, &size));
    memset(text + 11, 'x', 107);
    assert_false(bus_address_parse(text, &ret, &size));
    text[10 + 107] = '\0';
    assert_true(bus_address_parse(text, &ret, &size));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_sizes),      CASE(test_times),      CASE(test_numbers),
        CASE(test_size_texts), CASE(test_time_texts), CASE(test_what_is_printed_is_read),
        CASE(test_spans),      CASE(test_moments),    CASE(test_bus_addresses),
    };

    return cmocka_run_group_tests_name("ctl-units", tests, NULL, NULL);
}
