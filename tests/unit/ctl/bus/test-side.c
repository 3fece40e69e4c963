/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Calls of a broker, and what is made of its answers: side.c and record.c. */

#include "rig.h"

#include <math.h>

#include "common/error.h"
#include "ctl/bus/record.h"

static int call(sd_bus_message **ret)
{
    return side_call(&rig.side, BROKER_PATH, BROKER_NAME, "Cancel", ret, &rig.trouble, "Cannot cancel it",
                     NULL);
}

static int say_nothing(sd_bus_message *reply)
{
    return 0;
}

TEST(a_call_is_answered)
{
    begin();
    rig.answer = say_nothing;
    assert_int_equal(call(NULL), 0);
    assert_string_equal(rig.called, "Cancel");
    assert_int_equal(rig.trouble.status, 0);
    end();
}

TEST(an_error_has_its_exit_status)
{
    begin();
    rig.error = SD_BUS_ERROR_ACCESS_DENIED;
    is_trouble(call(NULL), STATUS_DENIED, "Cannot cancel it: The broker's reason. Run it as root");
    rig.error = SD_BUS_ERROR_SERVICE_UNKNOWN;
    is_trouble(call(NULL), STATUS_FAILED, "vmferryd is not on this bus");
    rig.error = ERROR_PREFIX "Cancelled";
    is_trouble(call(NULL), STATUS_CANCELLED, "The broker's reason.");
    rig.error = "org.example.Strange";
    is_trouble(call(NULL), STATUS_FAILED, "The broker's reason.");
    end();
}

TEST(a_broker_that_does_not_answer)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;

    begin();
    assert_int_equal(side_message(&rig.side, BROKER_PATH, BROKER_NAME, "Cancel", &m, &rig.trouble), 0);
    is_trouble(side_send(&rig.side, m, 1, NULL, &rig.trouble, "Cannot cancel it"), STATUS_TIMED_OUT,
               "the broker did not answer");
    end();
}

TEST(a_bus_that_goes_away)
{
    begin();
    rig.hang_up = true;
    is_trouble(call(NULL), STATUS_FAILED, "the connection to the bus is lost");
    end();
}

TEST(the_second_ctrl_c_waits_no_more)
{
    begin();
    rig.answer = say_nothing;
    rig.ctl.interrupts = 1;
    assert_int_equal(call(NULL), 0);
    rig.ctl.interrupts = 2;
    is_trouble(call(NULL), STATUS_CANCELLED, "interrupted twice");
    end();
}

/* ---- Records ---- */

static int say_properties(sd_bus_message *reply)
{
    return sd_bus_message_append(
        reply, "a{sv}", 8, "State", "s", "act\x1b[31mive", "Bytes\nSent", "t", UINT64_MAX, "Rate", "d",
        (double)NAN, "Progress", "d", 7.0, "Channels", "a(sutts)", 1, "migrate", 3, (uint64_t)5, (uint64_t)6,
        "open", "Sockets", "a{ss}", 1, "migrate", "/run/x.sock", "Peer", "i", -1, "New", "(sb)", "later", 1);
}

static json_object *read_record(void)
{
    json_object *record = NULL;

    assert_int_equal(record_read(&rig.side, BROKER_PATH, MIGRATION_INTERFACE, &record, &rig.trouble), 0);
    assert_string_equal(rig.called, "GetAll");
    return record;
}

/* The broker may be hostile: nothing that a terminal acts on, and no number that JSON does not have. */
TEST(a_record_is_clean)
{
    json_object *record, *channel;

    begin();
    rig.answer = say_properties;
    record = read_record();
    assert_string_equal(record_text(record, "State"), "act?[31mive");
    assert_true(record_number(record, "Bytes?Sent") == UINT64_MAX);
    assert_true(record_real(record, "Rate") == -1 && record_real(record, "Progress") == -1);
    assert_string_equal(record_socket(record, "migrate"), "/run/x.sock");
    channel = json_object_array_get_idx(record_list(record, "Channels"), 0);
    assert_string_equal(record_text(channel, "Stream"), "migrate");
    assert_int_equal(record_number(channel, "Received"), 6);
    assert_int_equal(json_object_array_length(record_list(record, "New")), 2);
    json_object_put(record);
    end();
}

TEST(another_type_is_nothing)
{
    json_object *record;

    begin();
    rig.answer = say_properties;
    record = read_record();
    assert_string_equal(record_text(record, "Peer"), "");
    assert_string_equal(record_text(record, "None"), "");
    assert_int_equal(record_number(record, "State"), 0);
    assert_null(record_list(record, "Sockets"));
    assert_null(record_object(record, "Channels"));
    assert_string_equal(record_socket(record, "other"), "");
    json_object_put(record);
    end();
}

static int say_a_text(sd_bus_message *reply)
{
    return sd_bus_message_append(reply, "s", "no record");
}

TEST(what_is_no_record)
{
    json_object *record = NULL;

    begin();
    rig.answer = say_a_text;
    is_trouble(record_read(&rig.side, BROKER_PATH, MIGRATION_INTERFACE, &record, &rig.trouble), STATUS_FAILED,
               "cannot be understood");
    rig.answer = say_nothing;
    is_trouble(record_read(&rig.side, BROKER_PATH, MIGRATION_INTERFACE, &record, &rig.trouble), STATUS_FAILED,
               "cannot be understood");
    assert_null(record);
    end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_call_is_answered),
        CASE(an_error_has_its_exit_status),
        CASE(a_broker_that_does_not_answer),
        CASE(a_bus_that_goes_away),
        CASE(the_second_ctrl_c_waits_no_more),
        CASE(a_record_is_clean),
        CASE(another_type_is_nothing),
        CASE(what_is_no_record),
    };

    return cmocka_run_group_tests_name("ctl-bus-side", tests, NULL, NULL);
}
