/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "session-rig.h"

/* What the source's owner tells goes to the destination's broker, and the end waits for it. */

static void hold(struct world *world, size_t side, uint64_t usec)
{
    union message m = {.hold.usec = usec};

    broker_sends(&world->sides[side], MESSAGE_HOLD, &m, -1);
    world_run(world);
}

static void tell(struct world *world, enum vf_outcome outcome)
{
    union message m = {.outcome.outcome = {.outcome = outcome, .downtime = 7, .reason = "so it is"}};

    broker_sends(&world->sides[SOURCE], MESSAGE_OUTCOME, &m, -1);
    world_run(world);
}

static void cancel(struct world *world)
{
    union message m = {.end = {.error = VF_ERROR_CANCELLED, .text = "by the test"}};

    broker_sends(&world->sides[SOURCE], MESSAGE_END, &m, -1);
    world_run(world);
}

/* All is carried, and both QEMUs have closed their sockets. */
static void carry_all(struct world *world)
{
    int qemu = world_adds_qemu(world);

    world_sends(world, qemu, "memory");
    world_receives(world, world->qemu, "memory");
    finish(world, qemu);
    close(qemu);
}

TEST(goes_to_the_peer_and_ends_the_waiting)
{
    _cleanup_world_ world = world_of(LONG);

    hold(world, DESTINATION, 0);
    hold(world, SOURCE, LONG);
    carry_all(world);
    assert_false(world->sides[SOURCE].has_ended);
    assert_false(world->sides[DESTINATION].has_ended);
    tell(world, VF_OUTCOME_MOVED);
    world_ends(world, VF_ERROR_NONE, VF_ERROR_NONE);
    assert_int_equal(world->sides[DESTINATION].n_outcomes, 1);
    assert_int_equal(world->sides[DESTINATION].outcome.outcome, VF_OUTCOME_MOVED);
    assert_int_equal(world->sides[DESTINATION].outcome.downtime, 7);
    assert_string_equal(world->sides[DESTINATION].outcome.reason, "so it is");
}

/* QEMU is cancelled first, and closes its sockets: without the waiting that would be done. */
TEST(a_cancel_after_qemus_is_a_cancel_at_both_ends)
{
    _cleanup_world_ world = world_of(LONG);

    hold(world, DESTINATION, 0);
    hold(world, SOURCE, LONG);
    carry_all(world);
    tell(world, VF_OUTCOME_NOT_MOVED);
    assert_false(world->sides[SOURCE].has_ended);
    cancel(world);
    world_ends(world, VF_ERROR_CANCELLED, VF_ERROR_CANCELLED);
    assert_int_equal(world->sides[DESTINATION].outcome.outcome, VF_OUTCOME_NOT_MOVED);
}

/* QEMU has closed the source's connection before it had read what the destination says. */
static void close_early(struct world *world)
{
    int qemu = world_adds_qemu(world);

    world_sends(world, qemu, "memory");
    world_receives(world, world->qemu, "memory");
    close(qemu);
    world_sends(world, world->qemu, "I heard");
    world_run(world);
}

TEST(a_cancel_after_a_connection_that_was_closed_early_is_a_cancel)
{
    _cleanup_world_ world = world_of(LONG);

    hold(world, DESTINATION, 0);
    hold(world, SOURCE, LONG);
    close_early(world);
    assert_false(world->sides[SOURCE].has_ended);
    cancel(world);
    world_ends(world, VF_ERROR_CANCELLED, VF_ERROR_CANCELLED);
}

/* Nor for longer because of reports that come meanwhile. */
TEST(a_connection_that_was_closed_early_does_not_wait_for_long)
{
    _cleanup_world_ world = world_of(LONG);

    hold(world, SOURCE, SHORT);
    close_early(world);
    hold(world, SOURCE, LONG);
    WORLD_WAIT(world, world->sides[SOURCE].has_ended && world->sides[DESTINATION].has_ended);
    world_ends(world, VF_ERROR_SOCKET_UNAVAILABLE, VF_ERROR_SOCKET_UNAVAILABLE);
}

TEST(a_connection_that_was_closed_early_fails_at_once_where_nobody_reports)
{
    _cleanup_world_ world = world_of(LONG);

    close_early(world);
    world_ends(world, VF_ERROR_SOCKET_UNAVAILABLE, VF_ERROR_SOCKET_UNAVAILABLE);
}

TEST(the_end_does_not_wait_for_long)
{
    _cleanup_world_ world = world_of(LONG);

    hold(world, SOURCE, SHORT);
    carry_all(world);
    assert_false(world->sides[SOURCE].has_ended);
    WORLD_WAIT(world, world->sides[SOURCE].has_ended && world->sides[DESTINATION].has_ended);
    world_ends(world, VF_ERROR_NONE, VF_ERROR_NONE);
}

TEST(nothing_waits_where_nobody_reports)
{
    _cleanup_world_ world = world_of(LONG);

    hold(world, SOURCE, 0);
    carry_all(world);
    world_ends(world, VF_ERROR_NONE, VF_ERROR_NONE);
}

/* It is told while the network is away: the next connection brings it, and once. */
TEST(outlives_a_cut)
{
    _cleanup_world_ world = world_of(LONG);
    int qemu = world_adds_qemu(world);

    hold(world, DESTINATION, 0);
    hold(world, SOURCE, LONG);
    world_sends(world, qemu, "memory");
    world->down = true;
    world_cuts(world);
    tell(world, VF_OUTCOME_LOST);
    assert_int_equal(world->sides[DESTINATION].n_outcomes, 0);
    world->down = false;
    WORLD_WAIT(world, world->sides[DESTINATION].n_outcomes > 0);
    world_cuts(world);
    WORLD_WAIT(world, world->sides[SOURCE].state == STATE_ACTIVE);
    assert_int_equal(world->sides[DESTINATION].n_outcomes, 1);
    close(qemu);
}

/* A broker of before would take PEER_OUTCOME for a lie: it is kept until this one says that it knows it. */
TEST(waits_for_a_broker_that_takes_it)
{
    _cleanup_world_ world = world_of(LONG);
    union message sync = {.sync.cookie = 1};

    hold(world, SOURCE, LONG);
    tell(world, VF_OUTCOME_MOVED);
    assert_int_equal(world->sides[DESTINATION].n_outcomes, 0);
    hold(world, DESTINATION, 0);
    assert_int_equal(world->sides[DESTINATION].n_outcomes, 1);
    hold(world, DESTINATION, 0); /* it has it */
    assert_int_equal(world->sides[DESTINATION].n_outcomes, 1);
    broker_sends(&world->sides[DESTINATION], MESSAGE_SYNC, &sync, -1);
    world_run(world);
    assert_int_equal(world->sides[DESTINATION].n_outcomes, 1);
    hold(world, DESTINATION, 0); /* the new broker may not have it */
    assert_int_equal(world->sides[DESTINATION].n_outcomes, 2);
}

/* A peer of before has not said in its HELLO that it takes OUTCOME, and would end the migration. */
TEST(says_nothing_to_a_peer_of_before)
{
    _cleanup_world_ world = world_of(LONG);

    hold(world, DESTINATION, 0);
    world->sides[SOURCE].session->peer_features = 0;
    tell(world, VF_OUTCOME_MOVED);
    assert_int_equal(world->sides[DESTINATION].n_outcomes, 0);
    carry_all(world);
    world_ends(world, VF_ERROR_NONE, VF_ERROR_NONE);
}

TEST(a_flood_of_outcomes_ends_it)
{
    _cleanup_world_ world = world_of(LONG);

    hold(world, DESTINATION, 0);
    for (int i = 0; i < 10 && !world->sides[DESTINATION].has_ended; i++)
        tell(world, i % 2 ? VF_OUTCOME_MOVED : VF_OUTCOME_LOST);
    assert_int_equal(world->sides[DESTINATION].n_outcomes, OUTCOMES_MAX);
    assert_int_equal(world->sides[DESTINATION].error, VF_ERROR_PROTOCOL_MISMATCH);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        CASE(goes_to_the_peer_and_ends_the_waiting),
        CASE(a_cancel_after_qemus_is_a_cancel_at_both_ends),
        CASE(a_cancel_after_a_connection_that_was_closed_early_is_a_cancel),
        CASE(a_connection_that_was_closed_early_does_not_wait_for_long),
        CASE(a_connection_that_was_closed_early_fails_at_once_where_nobody_reports),
        CASE(the_end_does_not_wait_for_long),
        CASE(nothing_waits_where_nobody_reports),
        CASE(outlives_a_cut),
        CASE(waits_for_a_broker_that_takes_it),
        CASE(says_nothing_to_a_peer_of_before),
        CASE(a_flood_of_outcomes_ends_it),
    };

    return cmocka_run_group_tests_name("helper-session-outcome", tests, NULL, NULL);
}
