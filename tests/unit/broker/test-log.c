/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "broker/log.h"

#include <sys/mman.h>

/* What the broker writes to its log. */

enum { PREFIX = sizeof("vmferryd: ") - 1, TEXT = 1023 /* bytes of a line at most */ };

/* The line that this text becomes, without what begins and ends it. */
static size_t logged(const char *text, char ret[static 2048])
{
    const int saved = dup(STDERR_FILENO), file = memfd_create("log", 0);
    ssize_t n;

    dup2(file, STDERR_FILENO);
    log_event(LOG_ERR, NULL, NULL, "%s", text);
    dup2(saved, STDERR_FILENO);
    n = pread(file, ret, 2047, 0);
    assert_true(n > PREFIX && ret[n - 1] == '\n');
    close(saved);
    close(file);
    memmove(ret, ret + PREFIX, (size_t)n - PREFIX - 1);
    ret[n - PREFIX - 1] = '\0';
    return strlen(ret);
}

TEST(a_line_that_is_cut_ends_with_a_whole_character)
{
    static const char *const characters[] = {"x", "é", "€", "𝄞"};
    char text[2048], line[2048];

    for (size_t i = 0; i < ELEMENTS(characters); i++)
        for (size_t shift = 0; shift < 4; shift++) {
            const size_t width = strlen(characters[i]);
            size_t n = shift;

            memset(text, 'a', shift);
            for (; n + width < sizeof(text) - 1; n += width)
                memcpy(text + n, characters[i], width);
            text[n] = '\0';
            assert_int_equal(logged(text, line), shift + (TEXT - shift) / width * width);
            assert_memory_equal(line, text, strlen(line));
        }
}

TEST(a_line_that_fits_stays_as_it_is)
{
    char line[2048];

    assert_int_equal(logged("é\xc3", line), 3); /* what comes in is cleaned elsewhere */
    assert_int_equal(logged("", line), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_line_that_is_cut_ends_with_a_whole_character),
        CASE(a_line_that_fits_stays_as_it_is),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
