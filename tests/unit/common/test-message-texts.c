/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Texts from outside: which may be sent, and what becomes of the others. */

#include "test-util.h"

#include "common/message.h"

TEST(test_text_ok)
{
    static const char *const good[] = {"",
                                       "a",
                                       "Grüße 日本 😀",
                                       "\xc2\xa0",
                                       "\xf4\x8f\xbf\xbf",
                                       "~ ",
                                       "\xe2\x80\x8d",
                                       "\xe2\x80\x90",
                                       "\xe2\x80\xaf",
                                       "\xef\xbf\xbc"};
    static const char *const bad[] = {
        "\n", "a\x1b", "\x7f", "\xc2\x80", "\xc2\x9f", "\xff", "\xc3", "\xc0\xaf", "\xed\xbf\xbf",
        "\xf4\x90\x80\x80", "\xe2\x82", "a\xc3(", "\xc1\xbf",
        /* U+061C, 200B, 200E, 200F, 2028, 2029, 202A, 202E, 2066, 2069, FEFF */
        "\xd8\x9c", "\xe2\x80\x8b", "\xe2\x80\x8e", "\xe2\x80\x8f", "\xe2\x80\xa8", "\xe2\x80\xa9",
        "\xe2\x80\xaa", "\xe2\x80\xae", "\xe2\x81\xa6", "\xe2\x81\xa9", "\xef\xbb\xbf"};
    char field[4] = {'a', 'b', 'c', 'd'};

    for (size_t i = 0; i < ELEMENTS(good); i++)
        assert_true(message_text_ok(good[i], strlen(good[i]) + 1));
    for (size_t i = 0; i < ELEMENTS(bad); i++)
        assert_false(message_text_ok(bad[i], strlen(bad[i]) + 1));
    assert_false(message_text_ok(field, sizeof(field))); /* not terminated */
    field[3] = '\0';
    assert_true(message_text_ok(field, sizeof(field)));
    memcpy(field, "a\xe2\x82\xac", 4); /* ends with a character that fills the field */
    assert_false(message_text_ok(field, sizeof(field)));
    assert_false(message_text_ok("", 0));
    /* What stands after the end is nobody's business. */
    assert_true(message_text_ok("ok\0\x1b\xff", 5));
}

TEST(test_text_set)
{
    char field[8];

    message_text_set(field, sizeof(field), "1234567");
    assert_string_equal(field, "1234567");
    message_text_set(field, sizeof(field), "12345678");
    assert_string_equal(field, "1234567");
    message_text_set(field, sizeof(field), "123456\xc3\xa9"); /* no half of a character */
    assert_string_equal(field, "123456");
    message_text_set(field, sizeof(field), "12345\xc3\xa9");
    assert_string_equal(field, "12345\xc3\xa9");
    message_text_set(field, sizeof(field), "a\nb\x1b\xff");
    assert_string_equal(field, "a?b??");
    message_text_set(field, sizeof(field), "\xe2\x82");
    assert_string_equal(field, "??");
    /* One '?' for a character, be it of two or three bytes. */
    message_text_set(field, sizeof(field), "a\xc2\x9b\xe2\x80\xae\xd8\x9c\xe2\x80\xa8z");
    assert_string_equal(field, "a????z");
    message_text_set(field, sizeof(field), "");
    for (size_t i = 0; i < sizeof(field); i++)
        assert_int_equal(field[i], 0); /* no old bytes cross to the other process */
    message_text_set(field, 1, "abc");
    assert_string_equal(field, "");

    /* Whatever goes in, what comes out may be sent. */
    for (int round = 0; round < 20000; round++) {
        char text[40], out[24];
        size_t n = test_random() % sizeof(text);

        for (size_t i = 0; i < n; i++)
            text[i] = (char)(test_random() % 3 ? 0x80 | test_random() : 1 + test_random() % 127);
        text[n < sizeof(text) ? n : sizeof(text) - 1] = '\0';
        message_text_set(out, sizeof(out), text);
        assert_true(message_text_ok(out, sizeof(out)));
    }
}

/* What was cut within a character ends before it; nothing else is touched. */
TEST(test_text_end)
{
    static const struct {
        const char *text, *whole;
    } cases[] = {
        {"", ""},
        {"abc", "abc"},
        {"ab\xc3\xa9", "ab\xc3\xa9"},
        {"ab\xc3", "ab"},
        {"ab\xe2\x82\xac", "ab\xe2\x82\xac"},
        {"ab\xe2\x82", "ab"},
        {"ab\xe2", "ab"},
        {"\xf0\x9d\x84\x9e", "\xf0\x9d\x84\x9e"},
        {"\xf0\x9d\x84", ""},
        {"\xf0", ""},
        {"\xff z", "\xff z"},
        {"z\xc2\x9b", "z\xc2\x9b"}, /* not printable, but whole */
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        char text[16];

        strcpy(text, cases[i].text);
        message_text_end(text);
        assert_string_equal(text, cases[i].whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_text_ok),
        CASE(test_text_set),
        CASE(test_text_end),
    };

    return cmocka_run_group_tests_name("message-texts", tests, NULL, NULL);
}
