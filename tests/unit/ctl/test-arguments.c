/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "ctl/arguments.h"

/* Parses a command line that is written with single blanks; '_' stands for a blank within a word. */
static int parse(const char *line, struct arguments *ret, struct trouble *trouble)
{
    static char text[512], *argv[64]; /* what is returned points into them */
    char *rest = NULL;
    int argc = 0;

    snprintf(text, sizeof(text), "%s", line);
    for (char *word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        for (char *c = word; *c; c++)
            *c = *c == '_' ? ' ' : *c;
        argv[argc++] = word;
    }
    argv[argc] = NULL;
    return arguments_parse(argc, argv, ret, trouble);
}

static struct arguments good(const char *line)
{
    struct trouble trouble = {0};
    struct arguments ret;

    if (parse(line, &ret, &trouble) < 0)
        fail_msg("%s: %s", line, trouble.text);
    return ret;
}

static void bad(const char *line, const char *word)
{
    struct trouble trouble = {0};
    struct arguments ret;

    assert_int_equal(parse(line, &ret, &trouble), -1);
    assert_int_equal(trouble.status, STATUS_USAGE);
    if (!strstr(trouble.text, word))
        fail_msg("%s: '%s' is not in: %s", line, word, trouble.text);
    trouble_clear(&trouble);
}

TEST(test_verbs)
{
    struct arguments a = good("vmferryctl");

    assert_int_equal(a.verb, VERB_LIST);
    assert_false(a.verb_given);
    a = good("vmferryctl wait a b c");
    assert_int_equal(a.verb, VERB_WAIT);
    assert_int_equal(a.n_operands, 3);
    assert_string_equal(a.operands[2], "c");
    assert_int_equal(good("vmferryctl migrate vm host --qmp /a --dst-qmp /b").verb, VERB_MIGRATE);
    assert_true(good("vmferryctl limit --help").help); /* although its operands are missing */
    assert_true(good("vmferryctl -V").version);
    bad("vmferryctl lists", "'lists'");
    bad("vmferryctl frobnicate", "no verb 'frobnicate'. See");
    bad("vmferryctl limit a", "limit MIGRATION RATE");
    bad("vmferryctl check a b", "check [HOST]");
}

/* Options may stand anywhere, with '=' or in the next word. */
TEST(test_options)
{
    struct arguments a = good(
        "vmferryctl send --qmp /q vm -q --postcopy=after_1.5 --bandwidth=1.5M --json short "
        "--multifd=4 --downtime-limit 250ms --resume-timeout=0 --expire=2min");

    assert_string_equal(a.operands[0], "vm");
    assert_string_equal(a.qmp, "/q");
    assert_true(a.quiet && a.json == JSON_SHORT && a.postcopy == POSTCOPY_AFTER &&
                a.postcopy_after == 1500000);
    assert_true(a.bandwidth == 3 << 19 && a.multifd == 4 && a.downtime_limit == 250000);
    assert_true(a.has_resume_timeout && a.resume_timeout == 0 && a.expire == 120000000);
    a = good("vmferryctl send --postcopy vm --qmp=/q");
    assert_true(a.postcopy == POSTCOPY_NOW);
    assert_string_equal(a.operands[0], "vm");
    assert_int_equal(good("vmferryctl send --postcopy=auto vm --qmp=/q").postcopy, POSTCOPY_AUTO);
    a = good("vmferryctl receive vm --endpoint=a --endpoint b");
    assert_int_equal(a.endpoints.n, 2);
    assert_string_equal(a.endpoints.texts[1], "b");
    a = good("vmferryctl -H me@host --user list");
    assert_string_equal(a.host, "me@host");
    assert_true(a.user);
    assert_int_equal(good("vmferryctl list -j").json, JSON_SHORT + (isatty(STDOUT_FILENO) ? 1 : 0));
    bad("vmferryctl send vm --postcopy=after --qmp=/q", "after");
    assert_true(good("vmferryctl send vm --postcopy=5s --qmp=/q").postcopy_after == 5000000);
    bad("vmferryctl send vm --postcopy=soon --qmp=/q", "a time ('30s')");
    bad("vmferryctl send vm --downtime-limit=300 --qmp=/q", "300ms or 300s?");
    bad("vmferryctl list --postcopy", "'list' has no option --postcopy");
    bad("vmferryctl send vm --multifd=241 --qmp=/q", "241");
    bad("vmferryctl receive vm --endpoint=", "empty");
}

TEST(test_many)
{
    char line[512] = "vmferryctl show";

    for (int i = 0; i < ARGUMENTS_MANY_MAX; i++)
        strcat(line, " -p X");
    assert_int_equal(good(line).properties.n, ARGUMENTS_MANY_MAX);
    strcat(line, " -p X");
    bad(line, "more than 16 times");
}

TEST(test_what_goes_together)
{
    bad("vmferryctl --user --address=x list", "--address");
    bad("vmferryctl -H h --address=x list", "--address");
    bad("vmferryctl send vm --resume", "--qmp");
    bad("vmferryctl migrate vm host --qmp=/q", "--dst-qmp");
    bad("vmferryctl migrate vm host --qmp=/q --dst-qmp=/q --ssh --endpoint=e", "--ssh");
    bad("vmferryctl send vm --security=both", "tls or plain");
}

/* A ticket that somebody typed is not said once more. */
TEST(test_tickets_are_secrets)
{
    struct trouble trouble = {0};
    struct arguments ret;

    assert_int_equal(parse("vmferryctl send vm vmferry1:SECRET", &ret, &trouble), -1);
    assert_null(strstr(trouble.text, "SECRET"));
    trouble_clear(&trouble);
}

/* What is spelt like a name, and nothing that is only short, or internal. */
TEST(test_did_you_mean)
{
    bad("vmferryctl lists", "Did you mean 'list'?");
    bad("vmferryctl migarte vm host", "Did you mean 'migrate'?");
    bad("vmferryctl ls", "no verb 'ls'. See");
    bad("vmferryctl sdtio", "no verb 'sdtio'. See");
    bad("vmferryctl show --valeu", "Did you mean --value?");
    bad("vmferryctl list --jsno=short", "Did you mean --json?");
    bad("vmferryctl list --frobnicate", "or it is not the only one");
    bad("vmferryctl list --no", "or it is not the only one");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_verbs), CASE(test_did_you_mean),       CASE(test_options),
        CASE(test_many),  CASE(test_what_goes_together), CASE(test_tickets_are_secrets),
    };

    return cmocka_run_group_tests_name("ctl-arguments", tests, NULL, NULL);
}
