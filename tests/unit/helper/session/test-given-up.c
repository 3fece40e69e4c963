/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "session-rig.h"

#include "helper/session/frames.h"

/* What is given up or refused, and what is done. */

/* The source gives a channel up of which the destination has seen no byte: neither is done without another.
 */
TEST(test_given_up_unseen)
{
    _cleanup_world_ world = world_new(start_of(SHORT), start_of(LONG));
    struct session *source = world->sides[SOURCE].session, *destination = world->sides[DESTINATION].session;
    int qemus[2], first;

    qemus[0] = world_adds_qemu(world);
    world_sends(world, qemus[0], "memory");
    first = world->qemu;
    world_receives(world, first, "memory");
    qemus[1] = world_adds_qemu(world); /* after a while the destination connects it without a byte, too */
    shutdown(qemus[0], SHUT_WR);
    shutdown(first, SHUT_WR);
    world_run(world);
    world->down = true;
    world_cuts(world);
    world_sends(world, qemus[1], "lost");
    WORLD_WAIT(world, world_is_closed(qemus[1]));
    world->down = false;
    WORLD_WAIT(world, source->connection == CONNECTION_UP && destination->connection == CONNECTION_UP);
    assert_false(channels_is_any_living(destination->channels));
    assert_false(channels_are_complete(destination->channels));
    assert_false(channels_are_complete(source->channels));
    for (int i = 0; i < 2; i++)
        close(qemus[i]);
    if (world->qemu != first)
        close(world->qemu);
    close(first);
    qemus[0] = world_adds_qemu(world);
    world_sends(world, qemus[0], "again");
    world_receives(world, world->qemu, "again");
    finish(world, qemus[0]);
    world_ends(world, VF_ERROR_NONE, VF_ERROR_NONE);
    close(qemus[0]);
}

/* Lets the helpers talk, with brokers that do nothing, until the source has said that all is over. */
static void run_until_said(struct world *world)
{
    const struct session *source = world->sides[SOURCE].session;

    for (int i = 0; i < 100 && source->said_close == 0; i++) {
        desk_run(&world->sides[DESTINATION].desk);
        desk_run(&world->sides[SOURCE].desk);
    }
}

/* The destination has heard it, and is done, but the source has lost the answer: also on a new connection. */
TEST(test_qemu_connects_when_all_is_said)
{
    _cleanup_world_ world = world_of(LONG);
    struct session *source = world->sides[SOURCE].session;
    int qemu = world_adds_qemu(world), late, pair[2];
    struct carrier *carrier;

    world_sends(world, qemu, "memory");
    world_receives(world, world->qemu, "memory");
    shutdown(qemu, SHUT_WR);
    shutdown(world->qemu, SHUT_WR);
    run_until_said(world);
    assert_int_equal(source->said_close, 1);
    world->down = true;
    for (size_t i = 0; i < world->n_connections; i++)
        shutdown(world->connections[i], SHUT_RDWR);
    desk_run(&world->sides[SOURCE].desk);
    test_pair(SOCK_STREAM, 0, pair);
    assert_int_equal(carrier_raw_new(pair[0], &carrier), 0);
    session_on_proved(source, PEER_RESUME, carrier);
    assert_int_equal(source->connections, 2);
    late = world_adds_qemu(world);
    assert_true(world_is_closed(late));
    assert_true(world->sides[DESTINATION].has_ended);
    assert_int_equal(world->sides[DESTINATION].error, VF_ERROR_NONE);
    close(late);
    close(pair[1]);
    close(qemu);
}

/* All others have ended well: nothing is left to wait for. */
TEST(test_last_channel_is_refused)
{
    _cleanup_world_ world = world_of(LONG);
    struct session *source = world->sides[SOURCE].session;
    const struct frame refusal = {
        .type = FRAME_REFUSED, .channel = 1, .refusal = {.error = VF_ERROR_LIMIT_EXCEEDED}};
    union message m = {.qemu = {.channel = MESSAGE_CHANNEL_NEW}};
    int qemu = world_adds_qemu(world), pair[2];

    world_sends(world, qemu, "memory");
    world_receives(world, world->qemu, "memory");
    test_pair(SOCK_STREAM, 0, pair);
    broker_sends(&world->sides[SOURCE], MESSAGE_QEMU, &m, pair[0]);
    shutdown(qemu, SHUT_WR);
    shutdown(world->qemu, SHUT_WR);
    run_until_said(world);
    assert_true(channels_lives(source->channels, 1));
    assert_false(channels_lives(source->channels, 0));
    assert_int_equal(source->said_close, 0);
    session_on_frame(source, &refusal);
    assert_true(world_is_closed(pair[1]));
    assert_int_equal(source->said_close, 1);
    close(pair[1]);
    close(qemu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_given_up_unseen),
        CASE(test_qemu_connects_when_all_is_said),
        CASE(test_last_channel_is_refused),
    };

    return cmocka_run_group_tests_name("helper-session-given-up", tests, NULL, NULL);
}
