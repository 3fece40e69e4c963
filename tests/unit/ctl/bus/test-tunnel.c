/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "ctl/bus/tunnel.h"
#include "ctl/loop.h"

/* As 'migrate --resume' has it where the brokers have forgotten the migration. */
TEST(none_is_read_waited_for_and_cancelled)
{
    struct tunnel none = {0};
    struct trouble trouble = {0};
    json_object *record = NULL;

    assert_int_equal(tunnel_read(&none, &record, &trouble), -1);
    assert_string_equal(trouble.text, "There is no tunnel.");
    trouble_clear(&trouble);
    assert_int_equal(tunnel_wait_finished(&none, SECOND, &record, &trouble), -1);
    assert_string_equal(trouble.text, "There is no tunnel.");
    trouble_clear(&trouble);
    assert_null(record);
    assert_string_equal(tunnel_id(&none), "-");
    tunnel_cancel(&none);
    tunnel_clear(&none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(none_is_read_waited_for_and_cancelled),
    };

    return cmocka_run_group_tests_name("ctl-tunnel", tests, NULL, NULL);
}
