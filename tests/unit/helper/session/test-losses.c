/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "session-rig.h"

#include "helper/session/frames.h"

/* What a lost connection means for the migration. */

static enum message_state state_of(const struct world *world, size_t side)
{
    return world->sides[side].state;
}

TEST(test_cut_and_resumed)
{
    _cleanup_world_ world = world_of(LONG);
    int qemu = world_adds_qemu(world);

    world_sends(world, qemu, "memory");
    world_receives(world, world->qemu, "memory");
    for (int i = 0; i < 3; i++) {
        world_cuts(world);
        assert_int_equal(world->sides[SOURCE].page->reconnects, i + 1); /* dialled at once */
        WORLD_WAIT(world,
                   state_of(world, SOURCE) == STATE_ACTIVE && state_of(world, DESTINATION) == STATE_ACTIVE);
        world_sends(world, qemu, "more");
        world_receives(world, world->qemu, "more");
        world_sends(world, world->qemu, "page");
        world_receives(world, qemu, "page");
        assert_int_equal(world->sides[SOURCE].page->reconnects, i + 1);
        assert_int_equal(world->sides[DESTINATION].page->reconnects, i + 1);
    }
    finish(world, qemu);
    world_ends(world, VF_ERROR_NONE, VF_ERROR_NONE);
    close(qemu);
}

/* What QEMU writes meanwhile waits; QEMU notices nothing. */
TEST(test_cut_for_a_while)
{
    _cleanup_world_ world = world_of(LONG);
    int qemu = world_adds_qemu(world);

    world_sends(world, qemu, "memory");
    world->down = true;
    world_cuts(world);
    assert_int_equal(state_of(world, SOURCE), STATE_INTERRUPTED);
    assert_int_equal(state_of(world, DESTINATION), STATE_INTERRUPTED);
    world_sends(world, qemu, "+more");
    world->down = false;
    WORLD_WAIT(world, state_of(world, DESTINATION) == STATE_ACTIVE);
    world_receives(world, world->qemu, "memory+more");
    finish(world, qemu);
    world_ends(world, VF_ERROR_NONE, VF_ERROR_NONE);
    close(qemu);
}

/* The time-out of a loss ends with it. */
TEST(test_resumed_in_time)
{
    _cleanup_world_ world = world_of(SHORT);
    int qemu = world_adds_qemu(world);

    world_sends(world, qemu, "memory");
    world_cuts(world);
    WORLD_WAIT(world, state_of(world, SOURCE) == STATE_ACTIVE);
    WORLD_WAIT(world, state_of(world, DESTINATION) == STATE_ACTIVE);
    poll(NULL, 0, 2 * SHORT / 1000);
    world_run(world);
    world_receives(world, world->qemu, "memory");
    finish(world, qemu);
    world_ends(world, VF_ERROR_NONE, VF_ERROR_NONE);
    close(qemu);
}

/* One loss after the other shares one time-out. */
TEST(test_cut_again_meanwhile)
{
    _cleanup_world_ world = world_of(LONG);
    struct session *session = world->sides[SOURCE].session;
    int qemu = world_adds_qemu(world);
    const sd_event_source *timer;

    world_sends(world, qemu, "memory");
    world->down = true;
    world_cuts(world);
    timer = session->recovery.timer;
    assert_non_null(timer);
    assert_true(session_set_connection(session, CONNECTION_GREETING));
    session_interrupt(session, "The network is away.");
    world_run(world);
    assert_int_equal(session->connection, CONNECTION_DOWN);
    assert_ptr_equal(session->recovery.timer, timer);
    close(qemu);
}

/* Only the source has noticed: its new connection says so, and takes the place of the old one. */
TEST(test_loss_that_one_side_notices)
{
    _cleanup_world_ world = world_of(LONG);
    struct session *session = world->sides[DESTINATION].session;
    int qemu = world_adds_qemu(world), pair[2];
    struct carrier *carrier;

    world_sends(world, qemu, "memory");
    test_pair(SOCK_STREAM, 0, pair);
    assert_int_equal(carrier_raw_new(pair[0], &carrier), 0);
    assert_int_equal(session->connection, CONNECTION_UP);
    session_on_proved(session, PEER_RESUME, carrier);
    assert_int_equal(session->connection, CONNECTION_GREETING);
    assert_int_equal(session->connections, 2);
    assert_int_equal(session->state, STATE_INTERRUPTED);
    assert_int_equal(control_fd(session->control), pair[0]);
    assert_false(session->halted);
    close(pair[1]);
    close(qemu);
}

/* Of a connection that breaks while they greet, only one side may know: the key for the next one is that of
 * the first. */
TEST(test_cut_in_the_greeting)
{
    _cleanup_world_ world = world_of(LONG);
    struct side *destination = &world->sides[DESTINATION];
    int qemu = world_adds_qemu(world);
    char hello[1024];

    world_sends(world, qemu, "memory");
    session_interrupt(world->sides[SOURCE].session, "The network is away.");
    for (int i = 0; i < 100 && destination->session->connections < 2; i++)
        for (size_t j = 0; j < 2; j++) {
            desk_run(&world->sides[j].desk);
            world_serves(world, &world->sides[j]);
        }
    assert_int_equal(destination->session->connection, CONNECTION_UP);
    assert_int_equal(world->sides[SOURCE].session->connection, CONNECTION_GREETING);
    assert_true(recv(world->connections[world->n_connections - 1], hello, sizeof(hello), MSG_DONTWAIT) > 0);
    world_cuts(world);
    WORLD_WAIT(world, world->sides[SOURCE].session->connection == CONNECTION_UP);
    finish(world, qemu);
    world_ends(world, VF_ERROR_NONE, VF_ERROR_NONE);
    close(qemu);
}

/* What is proved at one side only when the connection breaks is proved again. */
TEST(test_cut_at_the_end)
{
    _cleanup_world_ world = world_of(LONG);
    int qemu = world_adds_qemu(world);

    world_sends(world, qemu, "memory");
    world_receives(world, world->qemu, "memory");
    shutdown(qemu, SHUT_WR);
    world_run(world);
    world->down = true;
    world_cuts(world);
    shutdown(world->qemu, SHUT_WR);
    world_run(world);
    assert_false(world->sides[SOURCE].has_ended);
    world->down = false;
    world_ends(world, VF_ERROR_NONE, VF_ERROR_NONE);
    close(qemu);
}

/* The network stays away: the QEMUs learn it, and their next connections are channels of the same migration.
 */
TEST(test_time_out_and_recovery)
{
    _cleanup_world_ world = world_of(SHORT);
    int qemu = world_adds_qemu(world), lost;

    world_sends(world, qemu, "memory");
    lost = world->qemu;
    world->qemu = -1;
    world->down = true;
    world_cuts(world);
    assert_false(world_is_closed(qemu));
    WORLD_WAIT(world, world_is_closed(qemu));
    assert_false(world->sides[SOURCE].has_ended);
    close(qemu);
    close(lost);
    qemu = world_adds_qemu(world); /* migrate resume */
    world->down = false;
    WORLD_WAIT(world, world->sides[SOURCE].session->connection == CONNECTION_UP);
    assert_int_equal(state_of(world, SOURCE), STATE_INTERRUPTED);
    world_sends(world, qemu, "again");
    WORLD_WAIT(world, state_of(world, DESTINATION) == STATE_ACTIVE);
    assert_int_equal(state_of(world, SOURCE), STATE_ACTIVE);
    assert_int_equal(world->sides[SOURCE].session->recovery.stage, RECOVERY_NONE);
    world_receives(world, world->qemu, "again");
    finish(world, qemu);
    world_ends(world, VF_ERROR_NONE, VF_ERROR_NONE);
    close(qemu);
}

/* Without resuming, a loss is for good at once. */
TEST(test_no_resuming)
{
    _cleanup_world_ world = world_of(0);
    int qemu = world_adds_qemu(world);

    world_sends(world, qemu, "memory");
    world_cuts(world);
    assert_true(world_is_closed(qemu));
    assert_int_equal(world->sides[SOURCE].session->recovery.stage, RECOVERY_AWAITS_QEMU);
    close(qemu);
}

/* Before QEMU has connected there is nothing to recover. */
TEST(test_time_out_without_channels)
{
    _cleanup_world_ world = world_of(SHORT);

    world->down = true;
    world_cuts(world);
    world_ends(world, VF_ERROR_INTERRUPTED, VF_ERROR_INTERRUPTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_cut_and_resumed),
        CASE(test_cut_for_a_while),
        CASE(test_resumed_in_time),
        CASE(test_cut_again_meanwhile),
        CASE(test_loss_that_one_side_notices),
        CASE(test_cut_in_the_greeting),
        CASE(test_cut_at_the_end),
        CASE(test_time_out_and_recovery),
        CASE(test_no_resuming),
        CASE(test_time_out_without_channels),
    };

    return cmocka_run_group_tests_name("helper-session-losses", tests, NULL, NULL);
}
