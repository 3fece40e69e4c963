/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "ctl/libvirt/cancel.h"
#include "ctl/libvirt/check.h"
#include "ctl/libvirt/move.h"

/* What a vmferryctl says that was built without libvirt: none.c is linked here in place of the rest. */

static void assert_says(int r, struct trouble *trouble)
{
    assert_int_equal(r, -1);
    assert_int_equal(trouble->status, STATUS_FAILED);
    assert_non_null(strstr(trouble->text, "built without libvirt"));
    assert_non_null(strstr(trouble->text, "--qmp= and --dst-qmp="));
    assert_non_null(strstr(trouble->text, "'vmferryctl tunnel'"));
    trouble_clear(trouble);
}

TEST(each_verb_says_what_is_missing)
{
    struct ctl ctl = {0};
    struct side side = {.ctl = &ctl};
    struct trouble trouble = {0};

    assert_says(libvirt_migrate(&ctl, &trouble), &trouble);
    assert_says(libvirt_send(&ctl, "vmferry1:x", &trouble), &trouble);
    assert_says(libvirt_cancel(&side, NULL, &trouble), &trouble);
}

TEST(check_fails_where_a_domain_is_named)
{
    struct ctl ctl = {.arguments = {.domain = "web1", .json = JSON_SHORT}};
    struct side side = {.ctl = &ctl};
    struct check check = {
        .ctl = &ctl, .source = &side, .destination = &side, .findings = json_object_new_array()};
    json_object *found;

    libvirt_check(&check);
    assert_true(check.failed);
    assert_int_equal(json_object_array_length(check.findings), 1);
    found = json_object_array_get_idx(check.findings, 0);
    assert_string_equal(record_text(found, "Verdict"), "FAIL");
    assert_non_null(strstr(record_text(found, "Text"), "built without libvirt"));
    json_object_put(check.findings);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(each_verb_says_what_is_missing),
        CASE(check_fails_where_a_domain_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
