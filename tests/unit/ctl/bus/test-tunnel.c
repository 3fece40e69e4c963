/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rig.h"

#include "ctl/bus/tunnel.h"

#define PATH BROKER_PATH "/outgoing/1"

/* The clock of vmferryctl, which the linker puts in the place of ctl_now(), stands still: nothing is over by
 * time. */
uint64_t __wrap_ctl_now(void);

uint64_t __wrap_ctl_now(void)
{
    return SECOND;
}

static const char *told; /* of the migration, for its broker */

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

static int tell_change(sd_event_source *source, void *userdata)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;

    told = userdata;
    assert_true(sd_bus_message_new_signal(rig.broker, &m, PATH, "org.freedesktop.DBus.Properties",
                                          "PropertiesChanged") >= 0);
    assert_true(sd_bus_message_set_sender(m, BROKER_NAME) >= 0);
    assert_true(sd_bus_message_append(m, "sa{sv}as", MIGRATION_INTERFACE, 0, 0) >= 0);
    assert_true(sd_bus_send(rig.broker, m, NULL) >= 0);
    return 0;
}

/* And says, once it has answered, that it has changed. */
static int tell_state(sd_bus_message *reply)
{
    static char connected[] = "connected", finished[] = "finished";
    char *next = strcmp(told, "waiting") == 0 ? connected : strcmp(told, "active") == 0 ? finished : NULL;

    if (next)
        assert_true(sd_event_add_defer(rig.ctl.event, NULL, tell_change, next) >= 0);
    return sd_bus_message_append(reply, "a{sv}", 1, "State", "s", told);
}

TEST(a_change_that_is_told_ends_the_wait)
{
    struct tunnel tunnel = {.side = &rig.side, .vm = "web1"};
    char path[] = PATH;

    begin();
    rig.answer = tell_state;
    tunnel.path = path;
    told = "waiting";
    assert_int_equal(tunnel_wait_connected(&tunnel, &rig.trouble), 0);
    assert_int_equal(rig.calls, 2);
    told = "active";
    assert_int_equal(tunnel_wait_finished(&tunnel, SECOND, NULL, &rig.trouble), 1);
    assert_int_equal(rig.calls, 4);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(none_is_read_waited_for_and_cancelled),
        CASE(a_change_that_is_told_ends_the_wait),
    };

    return cmocka_run_group_tests_name("ctl-tunnel", tests, NULL, NULL);
}
