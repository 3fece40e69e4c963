/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "migration-rig.h"

/* The story of a migration, from the call that makes it to the day when it is forgotten. */

TEST(goes_from_waiting_to_done)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    int helper;
    struct migration *migration = rig_prepare(rig, &helper);

    assert_int_equal(rig->n_made, 1);
    assert_int_equal(rig_state_of(migration), STATE_WAITING);
    assert_non_null(migration_status(migration)->ticket);
    rig_state(rig, helper, STATE_CONNECTED, "");
    assert_int_equal(rig_changed(rig), CHANGE_STATE | CHANGE_PEER);
    assert_null(migration_status(migration)->ticket); /* it has served */
    assert_string_equal(migration_status(migration)->peer, "tcp:192.0.2.1:1");
    rig_state(rig, helper, STATE_ACTIVE, "");
    assert_int_equal(rig_changed(rig), CHANGE_STATE);
    rig_state(rig, helper, STATE_INTERRUPTED, "the network is gone");
    assert_non_null(strstr(migration_status(migration)->message, "the network is gone"));
    rig_state(rig, helper, STATE_ACTIVE, "");
    assert_null(migration_status(migration)->message);
    rig_changed(rig);
    rig_result(rig, helper, VF_ERROR_NONE, "");
    assert_int_equal(rig_changed(rig), CHANGE_STATE | CHANGE_RESULT);
    assert_int_equal(rig->n_finished, 1);
    assert_int_equal(migration_status(migration)->result, VF_RESULT_DONE);
    assert_true(helper_is_dropped(helper));
    assert_int_equal(registry_count_running(&rig->registry), 0);
    migration_forget(migration);
    assert_int_equal(rig->n_removed, 1);
}

TEST(a_finished_one_is_forgotten_in_time)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    int helper;

    rig->timing.kept = 20000;
    rig_prepare(rig, &helper);
    rig_result(rig, helper, VF_ERROR_PEER_REJECTED, "it was refused.");
    rig_wait(rig, &rig->n_removed, 1);
    assert_int_equal(registry_count(&rig->registry), 0);
}

TEST(an_old_ticket_is_refused_before_anything_is_made)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    _cleanup_(options_clear) struct options options = rig_options(rig);
    struct ticket ticket = {.id = 4711, .expiry = 1};
    char text[TICKET_TEXT_MAX];
    struct migration *migration;

    assert_true(ticket_encode(&ticket, text) >= 0);
    assert_true(migration_start(&rig->services, "vm", text, &options, getuid(), &migration, &error) < 0);
    assert_string_equal(error.name, "org.vmferry.Error.TicketExpired");
    assert_int_equal(rig->n_made + registry_count(&rig->registry), 0);
}

/* ---- What a helper cannot say ---- */

static void ends_by(void (*lie)(struct rig *rig, int helper))
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    int helper;
    struct migration *migration = rig_prepare(rig, &helper);

    lie(rig, helper);
    rig_turn(rig);
    assert_int_equal(rig->n_finished, 1);
    assert_int_equal(migration_identity(migration)->error, VF_ERROR_HELPER_FAILED);
    assert_true(helper_is_dropped(helper));
}

static void says_active_before_connected(struct rig *rig, int helper)
{
    rig_state(rig, helper, STATE_ACTIVE, "");
}

static void says_waiting_again(struct rig *rig, int helper)
{
    rig_state(rig, helper, STATE_CONNECTED, "");
    rig_state(rig, helper, STATE_WAITING, "");
}

static void says_a_result_of_another_error(struct rig *rig, int helper)
{
    helper_says(helper, MESSAGE_RESULT,
                (union message){.result = {.result = VF_RESULT_DONE, .error = VF_ERROR_CANCELLED}});
}

static void asks_for_a_stream_that_is_none(struct rig *rig, int helper)
{
    helper_says(helper, MESSAGE_NEED_QEMU, (union message){.need_qemu = {.channel = 0, .stream = 7}});
}

static void asks_for_the_peer_of_a_destination(struct rig *rig, int helper)
{
    helper_says(helper, MESSAGE_NEED_PEER, (union message){.need_peer = {.serial = 1, .kind = PEER_CONTROL}});
}

static void answers_a_sync_that_there_was_not(struct rig *rig, int helper)
{
    helper_says(helper, MESSAGE_SYNCED, (union message){.synced.cookie = 1});
}

TEST(a_helper_that_lies_is_ended)
{
    ends_by(says_active_before_connected);
    ends_by(says_waiting_again);
    ends_by(says_a_result_of_another_error);
    ends_by(asks_for_a_stream_that_is_none);
    ends_by(asks_for_the_peer_of_a_destination);
    ends_by(answers_a_sync_that_there_was_not);
}

TEST(a_helper_that_dies_is_the_end)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    int helper;
    struct migration *migration = rig_prepare(rig, &helper);

    rig_state(rig, helper, STATE_CONNECTED, "");
    shutdown(helper, SHUT_RDWR);
    rig_turn(rig);
    assert_int_equal(migration_identity(migration)->error, VF_ERROR_HELPER_FAILED);
    assert_non_null(strstr(migration_status(migration)->message, "Its helper has ended"));
}

/* ---- That it is told to end ---- */

TEST(is_told_once_and_ends_when_its_helper_confirms)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    int helper;
    struct migration *migration = rig_prepare(rig, &helper);
    union message m;

    rig_state(rig, helper, STATE_CONNECTED, "");
    migration_stop(migration, VF_ERROR_CANCELLED, "Cancelled by %s.", "a test");
    migration_stop(migration, VF_ERROR_TIMED_OUT, "Too late.");
    m = helper_hears(helper, MESSAGE_END, NULL);
    assert_int_equal(m.end.error, VF_ERROR_CANCELLED);
    assert_string_equal(m.end.text, "Cancelled by a test.");
    helper_hears_nothing(helper);
    assert_int_equal(rig->n_finished, 0);
    rig_result(rig, helper, VF_ERROR_CANCELLED, "Cancelled by a test.");
    assert_int_equal(rig->n_finished, 1);
    assert_int_equal(migration_status(migration)->result, VF_RESULT_CANCELLED);
}

TEST(ends_as_it_was_told_where_its_helper_does_not_confirm)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    int helper;
    struct migration *migration;

    rig->timing.stop = 20000;
    migration = rig_prepare(rig, &helper);
    migration_stop(migration, VF_ERROR_CANCELLED, "Cancelled.");
    rig_wait(rig, &rig->n_finished, 1);
    assert_int_equal(migration_identity(migration)->error, VF_ERROR_CANCELLED);
    helper_hears(helper, MESSAGE_END, NULL);
    assert_true(helper_is_dropped(helper));
}

/* What its helper says meanwhile gives it no more time. */
TEST(ends_in_time_whatever_its_helper_says)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    int helper;
    struct migration *migration;

    rig->timing.stop = 20000;
    migration = rig_prepare(rig, &helper);
    migration_stop(migration, VF_ERROR_CANCELLED, "Cancelled.");
    rig_state(rig, helper, STATE_CONNECTED, "");
    rig_state(rig, helper, STATE_ACTIVE, "");
    rig_wait(rig, &rig->n_finished, 1);
    assert_int_equal(migration_identity(migration)->error, VF_ERROR_CANCELLED);
}

/* A source that was cut off comes back, and hears at the port that it is over. */
TEST(the_port_stays_for_a_source_that_was_cut_off)
{
    for (int cut = 0; cut < 2; cut++) {
        _cleanup_rig_ struct rig *rig = rig_new(false);
        struct options options = rig_options(rig);
        struct migration *migration;
        uint32_t first;
        int helper;

        options.no_endpoints = false;
        migration = rig_prepare_with(rig, options, NULL);
        assert_true(message_peek_type(rig->stand_ins.helpers[0], &first) > 0);
        helper = rig->stand_ins.helpers[first != MESSAGE_START_RELAY]; /* the other one is the gate */
        helper_hears(helper, MESSAGE_START_RELAY, NULL);
        assert_true(port_is_open(rig->port));
        rig_state(rig, helper, STATE_CONNECTED, "");
        if (cut)
            migration_stop(migration, VF_ERROR_CANCELLED, "Cancelled.");
        rig_result(rig, helper, cut ? VF_ERROR_CANCELLED : VF_ERROR_NONE, "");
        assert_int_equal(rig->n_finished, 1);
        assert_int_equal(port_is_open(rig->port), cut);
        migration_forget(migration);
        assert_false(port_is_open(rig->port));
    }
}

TEST(a_source_that_is_cut_off_ends_at_once_and_its_helper_says_farewell)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    int helper;
    struct migration *migration = rig_start(rig, &helper);

    rig_state(rig, helper, STATE_CONNECTED, "");
    rig_state(rig, helper, STATE_INTERRUPTED, "gone");
    migration_stop(migration, VF_ERROR_CANCELLED, "Cancelled.");
    assert_int_equal(rig->n_finished, 1);
    helper_hears(helper, MESSAGE_END, NULL);
    assert_false(helper_is_dropped(helper)); /* it may still reach the peer */
    rig_result(rig, helper, VF_ERROR_CANCELLED, "");
    assert_true(helper_is_dropped(helper));
    assert_int_equal(rig->n_finished, 1);
}

/* ---- What bounds its states ---- */

TEST(expires_where_no_peer_comes)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    struct options options = rig_options(rig);
    struct migration *migration;
    int helper;

    options.expire = 20000;
    rig->timing.stop = 20000;
    migration = rig_prepare_with(rig, options, &helper);
    rig_wait(rig, &rig->n_finished, 1);
    assert_int_equal(migration_status(migration)->result, VF_RESULT_TIMED_OUT);
    assert_int_equal(helper_hears(helper, MESSAGE_END, NULL).end.error, VF_ERROR_TIMED_OUT);
}

TEST(ends_where_its_qemu_does_not_come)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    struct migration *migration;
    int helper;

    rig->timing.idle = rig->timing.stop = 20000;
    migration = rig_prepare(rig, &helper);
    rig_state(rig, helper, STATE_CONNECTED, "");
    rig_wait(rig, &rig->n_finished, 1);
    assert_non_null(strstr(migration_status(migration)->message, "The source QEMU did not connect"));
}

TEST(nothing_bounds_an_active_one)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    struct options later = rig_options(rig);
    int helper;

    rig->timing.idle = 300000;
    rig->timing.stop = 1000;
    rig_prepare(rig, &helper);
    rig_state(rig, helper, STATE_CONNECTED, "");
    rig_state(rig, helper, STATE_ACTIVE, "");
    later.expire = rig->timing.idle;
    rig_prepare_with(rig, later, NULL);
    rig_wait(rig, &rig->n_finished, 1); /* the other one: so its time is over, too */
    assert_int_equal(rig_state_of(registry_next(&rig->registry, NULL)->migration), STATE_ACTIVE);
    helper_hears_nothing(helper);
}

TEST(a_limit_goes_to_the_helper)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    int helper;
    struct migration *migration = rig_prepare(rig, &helper);

    migration_set_limit(migration, 12345);
    assert_int_equal(helper_hears(helper, MESSAGE_LIMIT, NULL).limit.bandwidth_limit, 12345);
    assert_int_equal(rig_changed(rig) & CHANGE_LIMIT, CHANGE_LIMIT);
    assert_int_equal(migration_options(migration)->bandwidth_limit, 12345);
}

/* Why it has ended is told to the source that was cut off, for that has proved itself before. */
TEST(what_a_peer_hears_of_one_that_has_ended)
{
    static const struct {
        enum vf_error error;
        enum peer_kind kind;
        enum vf_error rejection;
    } cases[] = {
        {VF_ERROR_CANCELLED, PEER_RESUME, VF_ERROR_CANCELLED},
        {VF_ERROR_CANCELLED, PEER_CONTROL, VF_ERROR_TICKET_USED},
        {VF_ERROR_NONE, PEER_CONTROL, VF_ERROR_TICKET_USED},
        {VF_ERROR_TIMED_OUT, PEER_CONTROL, VF_ERROR_TICKET_EXPIRED},
        {VF_ERROR_TIMED_OUT, PEER_RESUME, VF_ERROR_TICKET_EXPIRED},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        _cleanup_rig_ struct rig *rig = rig_new(false);
        int helper, pair[2];
        struct migration *migration = rig_prepare(rig, &helper);
        const uint64_t id = migration_identity(migration)->id;

        test_pair(SOCK_STREAM, 0, pair);
        assert_int_equal(arrivals_events.arrived(&rig->arrivals, cases[i].kind, id, NULL, pair[0]),
                         VF_ERROR_NONE);
        assert_int_equal(arrivals_events.arrived(&rig->arrivals, cases[i].kind, ~id, NULL, pair[0]),
                         VF_ERROR_NO_SUCH_MIGRATION);
        rig_result(rig, helper, cases[i].error, "");
        assert_int_equal(arrivals_events.arrived(&rig->arrivals, cases[i].kind, id, NULL, pair[0]),
                         cases[i].rejection);
        close(pair[0]);
        close(pair[1]);
    }
}

/* One of before knows no marks: it hears of the connection alone. */
TEST(a_mark_goes_to_a_helper_that_takes_it)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    const struct message_mark mark = {.number = 7};
    int helper, pair[2];
    struct migration *migration = rig_prepare(rig, &helper);

    test_pair(SOCK_STREAM, 0, pair);
    migration_peer_arrived(migration, PEER_CHANNEL, &mark, pair[0]);
    helper_hears(helper, MESSAGE_PEER, NULL);
    helper_says(helper, MESSAGE_FEATURES, (union message){.features.features = OFFER_MARKS});
    rig_turn(rig);
    migration_peer_arrived(migration, PEER_CHANNEL, &mark, pair[0]);
    assert_int_equal(helper_hears(helper, MESSAGE_PEER_MARKED, NULL).peer_marked.mark.number, 7);
    close(pair[0]);
    close(pair[1]);
}

/* Those that it has not read yet. */
TEST(connections_without_end_leave_room_for_what_the_helper_is_told)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    int helper, pair[2];
    struct migration *migration = rig_prepare(rig, &helper);
    uint32_t next;

    test_pair(SOCK_STREAM, 0, pair);
    for (int i = 0; i < 1000; i++)
        migration_peer_arrived(migration, PEER_CHANNEL, NULL, pair[0]);
    migration_set_limit(migration, 12345);
    while (message_peek_type(helper, &next) > 0 && next == MESSAGE_PEER)
        helper_hears(helper, MESSAGE_PEER, NULL);
    assert_int_equal(helper_hears(helper, MESSAGE_LIMIT, NULL).limit.bandwidth_limit, 12345);
    close(pair[0]);
    close(pair[1]);
}

/* Turns until nothing more was told for a second; how often something was. */
static unsigned told_soon(struct rig *rig)
{
    unsigned n = 0;

    for (int i = 0; i < 120; i++) {
        assert_true(sd_event_run(rig->event, 10000) >= 0);
        n += rig_changed(rig) != 0;
    }
    return n;
}

TEST(states_that_come_often_are_told_as_the_last_one)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    struct migration *migration;
    unsigned n = 0;
    int helper;

    migration = rig_prepare(rig, &helper);
    rig_state(rig, helper, STATE_CONNECTED, "");
    for (int i = 0; i < 40; i++) {
        rig_state(rig, helper, STATE_INTERRUPTED, "gone");
        n += rig_changed(rig) != 0;
        rig_state(rig, helper, STATE_CONNECTED, "");
        n += rig_changed(rig) != 0;
    }
    assert_between(n, 5, 10);
    n = told_soon(rig);
    assert_between(n, 1, 2);
    assert_int_equal(rig_state_of(migration), STATE_CONNECTED);

    /* What waits is told with the end, at once. */
    rig_state(rig, helper, STATE_INTERRUPTED, "gone");
    rig_state(rig, helper, STATE_CONNECTED, "");
    rig_state(rig, helper, STATE_INTERRUPTED, "gone");
    rig_changed(rig);
    rig_result(rig, helper, VF_ERROR_NONE, "");
    assert_int_equal(rig_changed(rig) & (CHANGE_STATE | CHANGE_RESULT), CHANGE_STATE | CHANGE_RESULT);
    assert_int_equal(told_soon(rig), 0);
}

TEST(a_helper_that_changes_its_state_without_end_is_ended)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    struct migration *migration;
    int helper;

    migration = rig_prepare(rig, &helper);
    rig_state(rig, helper, STATE_CONNECTED, "");
    for (int i = 0; i < 200 && rig_state_of(migration) != STATE_FINISHED; i++) {
        union message m = {.state_changed = {.state = i % 2 ? STATE_CONNECTED : STATE_INTERRUPTED}};

        if (message_send(helper, MESSAGE_STATE, &m, -1) < 0)
            break;
        rig_turn(rig);
    }
    rig_turn(rig);
    assert_int_equal(migration_identity(migration)->error, VF_ERROR_HELPER_FAILED);
    assert_non_null(strstr(migration_status(migration)->message, "changed its state more often than"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(goes_from_waiting_to_done),
        CASE(a_finished_one_is_forgotten_in_time),
        CASE(an_old_ticket_is_refused_before_anything_is_made),
        CASE(a_helper_that_lies_is_ended),
        CASE(a_helper_that_dies_is_the_end),
        CASE(is_told_once_and_ends_when_its_helper_confirms),
        CASE(ends_as_it_was_told_where_its_helper_does_not_confirm),
        CASE(a_source_that_is_cut_off_ends_at_once_and_its_helper_says_farewell),
        CASE(ends_in_time_whatever_its_helper_says),
        CASE(the_port_stays_for_a_source_that_was_cut_off),
        CASE(what_a_peer_hears_of_one_that_has_ended),
        CASE(a_mark_goes_to_a_helper_that_takes_it),
        CASE(expires_where_no_peer_comes),
        CASE(ends_where_its_qemu_does_not_come),
        CASE(nothing_bounds_an_active_one),
        CASE(a_limit_goes_to_the_helper),
        CASE(connections_without_end_leave_room_for_what_the_helper_is_told),
        CASE(states_that_come_often_are_told_as_the_last_one),
        CASE(a_helper_that_changes_its_state_without_end_is_ended),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
