/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "ctl/ssh/words.h"

static bool reason(const char *said, char *ret, size_t size)
{
    struct words words = {0};

    for (const char *c = said; *c; c++)
        words_add(&words, c, 1);
    return words_reason(&words, ret, size);
}

#define WARNING                                                                      \
    "** WARNING: connection is not using a post-quantum key exchange algorithm.\r\n" \
    "** This session may be vulnerable to \"store now, decrypt later\" attacks.\r\n" \
    "** The server may need to be upgraded. See https://openssh.com/pq.html\r\n"

static void test_far_end(void **state)
{
    static const char *const said[] = {
        "vmferryctl: There is none.\n",
        "vmferryctl: There is none.",
        "Authorized uses only.\nAll is logged.\nvmferryctl: There is none.\n",
        "Authorized uses only.\r\n\r\nvmferryctl: There is none.\r\n",
        (WARNING "vmferryctl: There is none.\nConnection to host2 closed by remote host.\r\n"),
        "vmferryctl: is on this host since May.\nvmferryctl: There is none.\nbye from .bash_logout\n",
        "Warning: Permanently added 'host2' (ED25519).\r\nvmferryctl: There is none.\n",
    };
    char text[200];

    (void)state;
    for (size_t i = 0; i < sizeof(said) / sizeof(said[0]); i++) {
        assert_true(reason(said[i], text, sizeof(text)));
        assert_string_equal(text, "There is none.");
    }
}

static void test_ssh_itself(void **state)
{
    static const struct {
        const char *said, *reason;
    } cases[] = {
        {"", ""},
        {"\r\n \n", ""},
        {"ssh: connect to host h port 22: Connection refused\r\n",
         "ssh: connect to host h port 22: Connection refused"},
        {"Connection to h closed.\r\nShared connection ended.\r\n",
         "Connection to h closed. Shared connection ended"},
        {WARNING "root@h: Permission denied (publickey).\r\n", "root@h: Permission denied (publickey)"},
        {"@@@@@@@@@\r\n@ WARNING @\r\n@@@@@@@@@\r\nHost key verification failed.\r\n",
         "@ WARNING @ Host key verification failed"},
        {"bash: line 1: vmferryctl: command not found\n", "bash: line 1: vmferryctl: command not found"},
        {"** only this\r\n", "** only this"},
    };
    char text[200];

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_false(reason(cases[i].said, text, sizeof(text)));
        assert_string_equal(text, cases[i].reason);
    }
}

/* However much is said: the end of it is kept, and what is shown fits. */
static void test_much(void **state)
{
    struct words words = {0};
    char big[WORDS_MAX + 1000], text[20];

    (void)state;
    memset(big, 'x', sizeof(big));
    words_add(&words, "vmferryctl: is pushed out\n", 26);
    words_add(&words, big, sizeof(big));
    assert_int_equal(words.n, WORDS_MAX);
    assert_false(words_reason(&words, text, sizeof(text)));
    assert_int_equal(strlen(text), sizeof(text) - 1);
    words_add(&words, "\nvmferryctl: 0123456789012345678901234567890", 43);
    assert_true(words_reason(&words, text, sizeof(text)));
    assert_string_equal(text, "0123456789012345678");
    for (size_t size = 1; size < 4; size++)
        words_reason(&words, text, size);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_far_end),
        cmocka_unit_test(test_ssh_itself),
        cmocka_unit_test(test_much),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
