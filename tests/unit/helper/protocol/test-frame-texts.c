/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "protocol-rig.h"

/* The names in HELLO and the texts of refusals: what a peer may write that somebody will read. */

static const char *const good_names[] = {
    "a", "migrate", "disks", "a1", "z-9", "x--", "abcdefghijklmnopqrstuvwxyz01234"};
static const char *const bad_names[] = {
    "",         "A",
    "1",        "-",
    "-a",       "1a",
    "aB",       "a b",
    "a_b",      "a/b",
    "a.b",      "..",
    "a\n",      "a\x80",
    "\xc3\xa9", "a\x7f",
    "a%s",      "a,b",
    "a ",       " a",
    "MIGRATE",  "abcdefghijklmnopqrstuvwxyz012345", /* 32 */
};

TEST(test_stream_names)
{
    for (size_t i = 0; i < ELEMENTS(good_names); i++)
        assert_true(stream_name_ok(good_names[i]));
    for (size_t i = 0; i < ELEMENTS(bad_names); i++)
        assert_false(stream_name_ok(bad_names[i]));
}

/* A HELLO by hand, so that it can hold what the encoder would not write. */
static size_t hello_of(uint8_t *buf, uint32_t n_streams, const char *const *names, size_t n_names)
{
    size_t at = FRAME_HEADER_SIZE + 16;

    memset(buf, 0, FRAME_HEADER_SIZE + 16);
    buf[FRAME_HEADER_SIZE] = 1;
    buf[FRAME_HEADER_SIZE + 8] = 1;
    for (unsigned i = 0; i < 4; i++)
        buf[FRAME_HEADER_SIZE + 12 + i] = (uint8_t)(n_streams >> 8 * i);
    for (size_t i = 0; i < n_names; i++) {
        size_t n = strlen(names[i]);

        buf[at++] = (uint8_t)n;
        memcpy(buf + at, names[i], n);
        at += n;
    }
    return header(buf, FRAME_HELLO, at - FRAME_HEADER_SIZE, 0);
}

TEST(test_hello_with_bad_names)
{
    uint8_t buf[FRAME_MAX];

    for (size_t i = 0; i < ELEMENTS(bad_names); i++) {
        const char *const names[] = {"migrate", bad_names[i]};

        expect_bad(buf, hello_of(buf, 2, names, 2), "HELLO has an impossible stream name");
        expect_bad(buf, hello_of(buf, 1, &bad_names[i], 1), "HELLO has an impossible stream name");
    }
}

TEST(test_hello_with_nul_in_a_name)
{
    const char *const names[] = {"migrate"};
    uint8_t buf[FRAME_MAX];
    size_t size = hello_of(buf, 1, names, 1);

    buf[size - 3] = 0;
    expect_bad(buf, size, "HELLO has an impossible stream name");
}

TEST(test_hello_with_duplicates)
{
    const char *const names[] = {"disks", "migrate", "disks"};
    uint8_t buf[FRAME_MAX];

    expect_bad(buf, hello_of(buf, 3, names, 3), "HELLO names a stream twice");
}

TEST(test_hello_numbers)
{
    const char *const names[] = {"migrate", "disks"};
    static const uint32_t counts[] = {0, MESSAGE_STREAMS_MAX + 1, 256, UINT32_MAX};
    uint8_t buf[FRAME_MAX];
    size_t size;

    for (size_t i = 0; i < ELEMENTS(counts); i++)
        expect_bad(buf, hello_of(buf, counts[i], names, 2), "HELLO has an impossible number of streams");
    /* More or fewer names than it says. */
    expect_bad(buf, hello_of(buf, 3, names, 2), "HELLO has an impossible stream name");
    expect_bad(buf, hello_of(buf, 1, names, 2), "HELLO is too long");
    size = hello_of(buf, 2, names, 2);
    buf[size] = 0;
    expect_bad(buf, header(buf, FRAME_HELLO, size - FRAME_HEADER_SIZE + 1, 0), "HELLO is too long");
    /* A name longer than what is left. */
    buf[size - 6] = 6;
    expect_bad(buf, header(buf, FRAME_HELLO, size - FRAME_HEADER_SIZE, 0),
               "HELLO has an impossible stream name");
    buf[size - 6] = 255;
    expect_bad(buf, header(buf, FRAME_HELLO, size - FRAME_HEADER_SIZE, 0),
               "HELLO has an impossible stream name");

    size = hello_of(buf, 2, names, 2);
    buf[FRAME_HEADER_SIZE + 8] = 0;
    expect_bad(buf, size, "HELLO allows no channel");
    for (size_t n = 0; n < 16; n++)
        expect_bad(buf, header(buf, FRAME_HELLO, n, 0), "HELLO is too short");
}

static size_t refusal_of(uint8_t *buf, enum frame_type type, uint32_t error, const void *text, size_t n)
{
    for (unsigned i = 0; i < 4; i++)
        buf[FRAME_HEADER_SIZE + i] = (uint8_t)(error >> 8 * i);
    memcpy(buf + FRAME_HEADER_SIZE + 4, text, n);
    return header(buf, type, 4 + n, 0);
}

TEST(test_refusals)
{
    static const enum frame_type types[] = {FRAME_REFUSED, FRAME_ABORT};
    static const char *const texts[] = {
        "a\nb",
        "\x1b[2J",
        "\x7f",
        "tab\t",
        "\xff",
        "\xc3", /* controls, no UTF-8 */
        "\xc0\x80",
        "\xe0\x80\x80",
        "\xf0\x80\x80\x80",
        "\xc1\xbf", /* longer than need be */
        "\xed\xa0\x80",
        "\xf4\x90\x80\x80",
        "\xf8\x88\x80\x80\x80", /* surrogate, beyond Unicode */
        "\xc2\x85",
        "\xc2\x9b[31m",
        "\x80",
        "ab\xe2\x82", /* C1, CSI, cut */
    };
    uint8_t buf[FRAME_MAX + 8], many[FRAME_TEXT_MAX + 1];

    memset(many, 'a', sizeof(many));
    for (size_t t = 0; t < ELEMENTS(types); t++) {
        for (size_t i = 0; i < ELEMENTS(texts); i++)
            expect_bad(buf, refusal_of(buf, types[t], 1, texts[i], strlen(texts[i])),
                       "a refusal whose text is not printable");
        expect_bad(buf, refusal_of(buf, types[t], 1, "a\0b", 3), "a refusal whose text is not printable");
        expect_bad(buf, refusal_of(buf, types[t], 1, "ab\0", 3), "a refusal whose text is not printable");
        expect_bad(buf, refusal_of(buf, types[t], 0, "", 0), "a refusal with an unknown error");
        expect_bad(buf, refusal_of(buf, types[t], VF_ERROR_MAX_, "", 0), "a refusal with an unknown error");
        expect_bad(buf, refusal_of(buf, types[t], UINT32_MAX, "", 0), "a refusal with an unknown error");
        expect_bad(buf, refusal_of(buf, types[t], 1, many, sizeof(many)), "a refusal of impossible length");
        for (size_t n = 0; n < 4; n++)
            expect_bad(buf, header(buf, types[t], n, 0), "a refusal of impossible length");
    }
}

/* A text longer than the frame can hold is cut by the encoder, never written beyond. */
TEST(test_unterminated_text)
{
    struct frame frame = {.type = FRAME_ABORT, .refusal.error = 1}, got;
    uint8_t buf[FRAME_MAX];
    size_t used;

    memset(frame.refusal.text, 'x', sizeof(frame.refusal.text));
    assert_int_equal(decode(buf, frame_encode(&frame, buf), &got, &used), VERDICT_OK);
    assert_int_equal(strlen(got.refusal.text), FRAME_TEXT_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_stream_names),
        CASE(test_hello_with_bad_names),
        CASE(test_hello_with_nul_in_a_name),
        CASE(test_hello_with_duplicates),
        CASE(test_hello_numbers),
        CASE(test_refusals),
        CASE(test_unterminated_text),
    };

    return cmocka_run_group_tests_name("protocol-texts", tests, NULL, NULL);
}
