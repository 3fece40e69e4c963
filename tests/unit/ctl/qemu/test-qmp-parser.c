/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "ctl/qemu/qemu.h"
#include "ctl/qemu/qmp-parser.h"

/* Feeds it in pieces of this size; how many messages came, and the last verdict. */
static size_t feed(const char *data, size_t size, size_t piece, enum qmp_verdict *ret)
{
    struct qmp_parser *parser = qmp_parser_new();
    size_t n = 0;

    assert_non_null(parser);
    *ret = QMP_MORE;
    for (size_t begin = 0; begin < size && (*ret == QMP_MORE || *ret == QMP_MESSAGE); begin += piece) {
        size_t at = begin, end = begin + piece < size ? begin + piece : size;

        do {
            json_object *message = NULL;

            *ret = qmp_parser_feed(parser, data, end, &at, &message);
            if (*ret == QMP_MESSAGE) {
                n++;
                assert_true(json_object_is_type(message, json_type_object));
                json_object_put(message);
            }
            assert_true(at <= end);
        } while (*ret == QMP_MESSAGE);
    }
    qmp_parser_free(parser);
    return n;
}

static void expect(const char *data, size_t messages, enum qmp_verdict verdict)
{
    enum qmp_verdict got;

    for (size_t piece = 1; piece <= strlen(data) + 1; piece++) {
        assert_int_equal(feed(data, strlen(data), piece, &got), messages);
        assert_int_equal(got, verdict);
    }
}

TEST(test_messages)
{
    expect("{}", 1, QMP_MORE);
    expect("{\"return\": {}, \"id\": 1}\r\n", 1, QMP_MORE);
    expect("{\"a\": 1}\r\n{\"b\": [1, 2, {\"c\": \"}{\"}]}\n", 2, QMP_MORE);
    expect("  \r\n {\"a\": \"\\u00e9 \xc3\xa9\"}{\"b\": 2}", 2, QMP_MORE);
    expect("{\"a\": 18446744073709551615}", 1, QMP_MORE);
    expect("{\"a\":", 0, QMP_MORE);
    expect("", 0, QMP_MORE);
}

/* Whole, and in pieces of each size, the text becomes this. */
static void expect_read(const char *text, const char *want)
{
    for (size_t piece = 1; piece <= strlen(text); piece++) {
        struct qmp_parser *parser = qmp_parser_new();
        json_object *message = NULL;

        assert_non_null(parser);
        for (size_t begin = 0; begin < strlen(text) && !message; begin += piece) {
            size_t at = begin, end = begin + piece < strlen(text) ? begin + piece : strlen(text);

            assert_int_equal(qmp_parser_feed(parser, text, end, &at, &message),
                             end < strlen(text) ? QMP_MORE : QMP_MESSAGE);
            assert_int_equal(at, end);
        }
        assert_string_equal(json_object_to_json_string_ext(message, JSON_C_TO_STRING_PLAIN), want);
        json_object_put(message);
        qmp_parser_free(parser);
    }
}

/* What is no number, or one that nothing holds, is missing; the rest of the message is read. */
TEST(test_numbers)
{
    expect_read("{\"a\": nan, \"b\": -nan, \"c\": [inf,-inf], \"d\": 1}",
                "{\"a\":null,\"b\":null,\"c\":[null,null],\"d\":1}");
    expect_read("{\"a\": NaN, \"b\": -Infinity }", "{\"a\":null,\"b\":null}");
    expect_read("{\"a\": [1e999, -1e999, 1e99]}", "{\"a\":[null,null,1e99]}");
    expect_read("{\"a\": [-99999999999999999999999, 99999999999999999999999]}", "{\"a\":[null,null]}");
    expect_read("{\"a\": [18446744073709551615, -9223372036854775808, 18446744073709551616]}",
                "{\"a\":[18446744073709551615,-9223372036854775808,null]}");
    expect_read(
        "{\"a\": 1111111111111111111111111111111111111111111111111111111111111111111111111111111111111111}",
        "{\"a\":null}");
    expect_read("{\"nan\": \"nan \\\" inf, 1e999\", \"b\": [true, false, null, -0.5, 1]}",
                "{\"nan\":\"nan \\\" inf, 1e999\",\"b\":[true,false,null,-0.5,1]}");
}

TEST(test_garbage)
{
    static const char *const bad[] = {
        "[]",           "12",          "\"x\"",         "null",         "}",
        "SSH-2.0",      "{]",          "{\"a\" 1}",     "{a: 1}",       "{\"a\": 01x}",
        "{\"a\": tru}", "\x01{}",      "{\"a\": 'x'}",  "{,}",          "{\"a\": 1,}",
        "{nan: 1}",     "{\"a\" nan}", "{\"a\": nano}", "{\"a\": --1}", "{\"a\": 1e}",
        "{\"a\": 01}",  "{\"a\": +1}", "{\"a\": n an}"};

    for (size_t i = 0; i < ELEMENTS(bad); i++)
        expect(bad[i], 0, QMP_BAD);
    expect("{} x", 1, QMP_BAD);
}

static void expect_long(const char *head, const char *body, enum qmp_verdict want)
{
    size_t size = 2 * QMP_MESSAGE_MAX, n = strlen(head), each = strlen(body);
    char *data = malloc(size);
    enum qmp_verdict got;

    assert_non_null(data);
    memcpy(data, head, n);
    for (size_t i = n; i < size; i++)
        data[i] = body[(i - n) % each];
    for (size_t piece = test_in_valgrind() ? 100000 : 1000; piece < 300000; piece *= 3) {
        assert_int_equal(feed(data, size, piece, &got), 0);
        assert_int_equal(got, want);
    }
    free(data);
}

TEST(test_bounds)
{
    expect_long("{\"a\": \"", "x", QMP_LONG);
    expect_long("{\"a\": [1", ",1", QMP_LONG);
    expect_long("{\"a\": ", "[", QMP_BAD); /* too deep before it is too long */
    expect_long("{\"a\": ", "{\"a\": ", QMP_BAD);
    expect_long("{", " ", QMP_LONG);
    expect_long(" ", " ", QMP_MORE); /* blanks between messages cost nothing */
}

TEST(test_random_bytes)
{
    char data[512];
    enum qmp_verdict got;

    for (int round = 0; round < (test_in_valgrind() ? 300 : 3000); round++) {
        static const char alphabet[] = "{}[]\":,0123456789.eE+-truefalsn\\u \n\x80\xff";

        for (size_t i = 0; i < sizeof(data); i++)
            data[i] = alphabet[test_random() % (sizeof(alphabet) - 1)];
        data[0] = '{';
        feed(data, sizeof(data), 1 + test_random() % sizeof(data), &got);
    }
}

static struct qemu_info info_of(const char *text)
{
    json_object *object = json_tokener_parse(text);
    struct qemu_info info;

    qemu_read_info(object, &info);
    json_object_put(object);
    return info;
}

TEST(test_info)
{
    struct qemu_info info = info_of(
        "{\"status\": \"active\", \"total-time\": 12, \"ram\": {\"total\": 1000, \"remaining\": 400,"
        " \"transferred\": 700, \"dirty-sync-count\": 3, \"dirty-pages-rate\": 5,"
        " \"page-size\": 4096}}");

    assert_int_equal(info.phase, QEMU_PRECOPY);
    assert_true(info.total == 1000 && info.remaining == 400 && info.transferred == 700 && info.passes == 3);
    assert_true(info.dirty == 20480 && info.total_msec == 12);
    assert_int_equal(info_of("{}").phase, QEMU_NONE);
    assert_int_equal(info_of("{\"status\": \"postcopy-paused\"}").phase, QEMU_PAUSED);
    assert_int_equal(info_of("{\"status\": \"postcopy-recover\"}").phase, QEMU_POSTCOPY);
    info = info_of("{\"status\": \"failed\", \"error-desc\": \"why\"}");
    assert_int_equal(info.phase, QEMU_FAILED);
    assert_string_equal(info.error, "why");
}

/* Of a post-copy that stood still for less than 1 ms QEMU 7.2 says for how long its clock has run. */
TEST(test_info_of_no_downtime)
{
    assert_int_equal(
        info_of("{\"status\": \"completed\", \"total-time\": 199, \"downtime\": 3}").downtime_msec, 3);
    assert_int_equal(
        info_of("{\"status\": \"completed\", \"total-time\": 199, \"downtime\": 75015711}").downtime_msec, 1);
}

/* Whatever it holds, it is read, and no number is more than it is. */
TEST(test_hostile_info)
{
    static const char *const texts[] = {
        "[]",
        "{\"status\": 7, \"ram\": []}",
        "{\"status\": {\"a\": 1}, \"ram\": {\"total\": \"many\", \"remaining\": -5, \"transferred\": 1e300}}",
        "{\"ram\": {\"dirty-pages-rate\": 18446744073709551615, \"page-size\": 4096}}",
        "{\"status\": \"a status that is far longer than any that a QEMU has ever had so far\"}",
    };

    for (size_t i = 0; i < ELEMENTS(texts); i++) {
        struct qemu_info info = info_of(texts[i]);

        assert_true(strlen(info.status) < sizeof(info.status));
        assert_int_equal(info.dirty, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_messages),
        CASE(test_numbers),
        CASE(test_garbage),
        CASE(test_bounds),
        CASE(test_random_bytes),
        CASE(test_info),
        CASE(test_info_of_no_downtime),
        CASE(test_hostile_info),
    };

    return cmocka_run_group_tests_name("ctl-qmp", tests, NULL, NULL);
}
