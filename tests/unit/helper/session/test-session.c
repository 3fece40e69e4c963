/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "session-rig.h"

#include "helper/session/messages.h"

/* How a migration goes, and what a cancel and a broker's death mean for it. */

static enum message_state state_of(const struct world *world, size_t side)
{
    return world->sides[side].state;
}

TEST(test_done)
{
    _cleanup_world_ world = world_of(LONG);
    int qemu;

    assert_int_equal(state_of(world, SOURCE), STATE_CONNECTED);
    assert_int_equal(state_of(world, DESTINATION), STATE_CONNECTED);
    qemu = world_adds_qemu(world);
    world_sends(world, qemu, "memory");
    assert_int_equal(state_of(world, SOURCE), STATE_ACTIVE);
    assert_int_equal(state_of(world, DESTINATION), STATE_ACTIVE);
    world_receives(world, world->qemu, "memory");
    world_sends(world, world->qemu, "page 7");
    world_receives(world, qemu, "page 7");
    finish(world, qemu);
    world_ends(world, VF_ERROR_NONE, VF_ERROR_NONE);
    assert_int_equal(world->sides[SOURCE].page->sent, 6);
    assert_int_equal(world->sides[DESTINATION].page->received, 6);
    close(qemu);
}

/* Two helpers of different secrets do not meet. */
TEST(test_other_secret)
{
    struct message_start_relay other = start_of(LONG);

    strcpy((char *)other.secret, "something else");
    _cleanup_world_ world = world_new(start_of(LONG), other);
    WORLD_WAIT(world, world->sides[SOURCE].has_ended);
    assert_int_equal(world->sides[SOURCE].error, VF_ERROR_PEER_REJECTED);
    assert_false(world->sides[DESTINATION].has_ended); /* anyone can fail to prove itself */
}

TEST(test_stream_that_was_not_prepared)
{
    struct message_start_relay other = start_of(LONG);

    strcpy(other.streams[0], "disks");
    _cleanup_world_ world = world_new(start_of(LONG), other);
    world_ends(world, VF_ERROR_NO_SUCH_STREAM, VF_ERROR_NO_SUCH_STREAM);
}

TEST(test_no_network_at_first)
{
    _cleanup_world_ world = world_make();

    world->down = true;
    world_start(world, start_of(LONG), start_of(LONG));
    assert_true(world->sides[SOURCE].has_ended);
    assert_int_equal(world->sides[SOURCE].error, VF_ERROR_PEER_UNREACHABLE);
    assert_string_equal(world->sides[SOURCE].why, "There is no network.");
}

/* ---- Ends that others want ---- */

TEST(test_cancel)
{
    for (size_t side = 0; side < 2; side++) {
        _cleanup_world_ world = world_of(LONG);
        int qemu = world_adds_qemu(world);

        world_sends(world, qemu, "memory");
        broker_ends(world, side, VF_ERROR_CANCELLED);
        world_ends(world, VF_ERROR_CANCELLED, VF_ERROR_CANCELLED);
        assert_true(world_is_closed(qemu));
        close(qemu);
    }
}

/* A source that is cut off tells the peer when it can. */
TEST(test_farewell)
{
    _cleanup_world_ world = world_of(LONG);
    int qemu = world_adds_qemu(world);

    world_sends(world, qemu, "memory");
    world->down = true;
    world_cuts(world);
    broker_ends(world, SOURCE, VF_ERROR_CANCELLED);
    assert_true(world_is_closed(qemu));
    assert_false(world->sides[SOURCE].has_ended);
    assert_false(world->sides[DESTINATION].has_ended);
    world->down = false;
    world_ends(world, VF_ERROR_CANCELLED, VF_ERROR_CANCELLED);
    close(qemu);
}

/* So is it where the loop has yet to act upon the loss. */
TEST(test_farewell_right_after_the_loss)
{
    _cleanup_world_ world = world_of(LONG);
    struct side *source = &world->sides[SOURCE];
    union message m = {
        .end = {.header.type = MESSAGE_END, .error = VF_ERROR_CANCELLED, .text = "Cancelled."}};
    int qemu = world_adds_qemu(world);

    world_sends(world, qemu, "memory");
    world->down = true;
    session_interrupt(source->session, "The network is away.");
    session_on_message(&source->desk.link, &m, -1, source->session);
    assert_int_equal(source->session->ending.stage, ENDING_FAREWELL);
    world_run(world);
    world->down = false;
    world_ends(world, VF_ERROR_CANCELLED, VF_ERROR_CANCELLED);
    close(qemu);
}

/* A connection that is lost before the peer has heard the farewell changes nothing of what it will hear. */
TEST(test_farewell_after_another_loss)
{
    _cleanup_world_ world = world_of(LONG);
    struct session *session = world->sides[SOURCE].session;
    int qemu = world_adds_qemu(world);

    world_sends(world, qemu, "memory");
    world->down = true;
    world_cuts(world);
    broker_ends(world, SOURCE, VF_ERROR_CANCELLED);
    assert_true(session_set_connection(session, CONNECTION_GREETING));
    session_interrupt(session, "The network is away.");
    assert_string_equal(session->why, "Cancelled.");
    world->down = false;
    world_ends(world, VF_ERROR_CANCELLED, VF_ERROR_CANCELLED);
    assert_non_null(strstr(world->sides[DESTINATION].why, "Cancelled."));
    close(qemu);
}

TEST(test_qemu_goes)
{
    _cleanup_world_ world = world_of(LONG);
    int qemu = world_adds_qemu(world);

    world_sends(world, qemu, "memory");
    close(world->qemu);
    world->qemu = -1;
    world_sends(world, qemu, "more");
    world_ends(world, VF_ERROR_SOCKET_UNAVAILABLE, VF_ERROR_SOCKET_UNAVAILABLE);
    close(qemu);
}

/* ---- Brokers ---- */

#define COOKIE (SYNC_KNOWS_FEATURES << 32 | 42)

/* A new broker hears the state and all that is not answered, and that alone. */
TEST(test_new_broker)
{
    _cleanup_world_ world = world_of(LONG);
    union message sync = {.sync.cookie = COOKIE}, m;
    struct side *destination = &world->sides[DESTINATION];
    int qemu;

    world->keeps_qemu_waiting = true;
    qemu = world_adds_qemu(world);
    world_sends(world, qemu, "memory");
    broker_sends(destination, MESSAGE_SYNC, &sync, -1);
    desk_run(&destination->desk);
    assert_int_equal(desk_heard(&destination->desk, &m), MESSAGE_SYNCED);
    assert_int_equal(m.synced.cookie, COOKIE);
    assert_int_equal(desk_heard(&destination->desk, &m), MESSAGE_FEATURES);
    assert_int_equal(desk_heard(&destination->desk, &m), MESSAGE_STATE);
    assert_int_equal(m.state_changed.state, STATE_CONNECTED);
    assert_int_equal(desk_heard(&destination->desk, &m), MESSAGE_NEED_QEMU);
    assert_int_equal(m.need_qemu.channel, 0);
    world_connects_qemu(world, &m);
    assert_int_equal(desk_heard(&destination->desk, &m), 0);
    world->keeps_qemu_waiting = false;
    world_connects_qemu(world, &(union message){.need_qemu = {.channel = 0}});
    world_receives(world, world->qemu, "memory");
    finish(world, qemu);
    world_ends(world, VF_ERROR_NONE, VF_ERROR_NONE);
    close(qemu);
}

/* An older broker hears no message that it does not know; a newer one that follows it hears them again. */
TEST(test_older_broker)
{
    _cleanup_world_ world = world_of(LONG);
    union message keep = {.keep = {.number = 5, .what = KEPT_FOR_QEMU, .shared = 1}}, m;
    union message older = {.sync.cookie = 42}, sync = {.sync.cookie = COOKIE};
    struct side *destination = &world->sides[DESTINATION];
    int pair[2];

    test_pair(SOCK_STREAM, 0, pair);
    broker_sends(destination, MESSAGE_KEEP, &keep, pair[0]);
    broker_sends(destination, MESSAGE_SYNC, &older, -1);
    desk_run(&destination->desk);
    assert_int_equal(desk_heard(&destination->desk, &m), MESSAGE_SYNCED);
    assert_int_equal(m.synced.cookie, 42);
    assert_int_equal(desk_heard(&destination->desk, &m), MESSAGE_STATE);
    assert_int_equal(desk_heard(&destination->desk, &m), 0);
    broker_sends(destination, MESSAGE_SYNC, &sync, -1);
    desk_run(&destination->desk);
    assert_int_equal(desk_heard(&destination->desk, &m), MESSAGE_SYNCED);
    assert_int_equal(desk_heard(&destination->desk, &m), MESSAGE_FEATURES);
    assert_int_equal(desk_heard(&destination->desk, &m), MESSAGE_KEPT);
    close(pair[1]);
}

/* What the broker before it owed to a channel that is no more, it does not owe: the next has its turn. */
TEST(test_new_broker_owes_nothing)
{
    _cleanup_world_ world = world_of(LONG);
    union message sync = {.sync.cookie = COOKIE}, m;
    struct side *destination = &world->sides[DESTINATION];
    enum message_type heard;
    int qemu;

    world->keeps_qemu_waiting = true;
    qemu = world_adds_qemu(world);
    world_sends(world, qemu, "memory");
    requests_give_up(destination->session->requests, 0);
    broker_sends(destination, MESSAGE_SYNC, &sync, -1);
    desk_run(&destination->desk);
    while ((heard = desk_heard(&destination->desk, &m)) != 0 && heard != MESSAGE_NEED_QEMU)
        ;
    assert_int_equal(heard, MESSAGE_NEED_QEMU);
    close(qemu);
}

/* What waits to be needed outlives the broker that brought it. */
TEST(test_kept)
{
    _cleanup_world_ world = world_of(LONG);
    union message keep = {.keep = {.number = 5, .what = KEPT_FOR_QEMU, .shared = 1}}, m;
    union message sync = {.sync.cookie = COOKIE}, use = {.use = {.number = 5}};
    struct side *destination = &world->sides[DESTINATION];
    int qemu, pair[2];

    world->keeps_qemu_waiting = true;
    test_pair(SOCK_STREAM, 0, pair);
    broker_sends(destination, MESSAGE_KEEP, &keep, pair[0]);
    broker_sends(destination, MESSAGE_SYNC, &sync, -1);
    desk_run(&destination->desk);
    assert_int_equal(desk_heard(&destination->desk, &m), MESSAGE_SYNCED);
    assert_int_equal(desk_heard(&destination->desk, &m), MESSAGE_FEATURES);
    assert_int_equal(desk_heard(&destination->desk, &m), MESSAGE_KEPT);
    assert_int_equal(m.kept.number, 5);
    assert_int_equal(m.kept.what, KEPT_FOR_QEMU);
    assert_int_equal(m.kept.shared, 1);
    qemu = world_adds_qemu(world);
    world_sends(world, qemu, "memory");
    broker_sends(destination, MESSAGE_USE, &use, -1);
    world->qemu = pair[1];
    world_receives(world, world->qemu, "memory");
    broker_sends(destination, MESSAGE_SYNC, &sync, -1);
    desk_run(&destination->desk);
    assert_int_equal(desk_heard(&destination->desk, &m), MESSAGE_SYNCED);
    assert_int_equal(desk_heard(&destination->desk, &m), MESSAGE_FEATURES);
    assert_int_equal(desk_heard(&destination->desk, &m), MESSAGE_STATE);
    finish(world, qemu);
    world_ends(world, VF_ERROR_NONE, VF_ERROR_NONE);
    close(qemu);
}

/* One that it was never given: there is nothing to wait for. */
TEST(test_kept_nothing)
{
    _cleanup_world_ world = world_of(LONG);
    union message use = {.use = {.number = 9}};
    int qemu = world_adds_qemu(world);

    world_sends(world, qemu, "memory");
    broker_sends(&world->sides[DESTINATION], MESSAGE_USE, &use, -1);
    world_ends(world, VF_ERROR_HELPER_FAILED, VF_ERROR_HELPER_FAILED);
    close(qemu);
}

/* Without a broker channels that are open go on to their end; what needs one does not. */
TEST(test_broker_is_gone)
{
    _cleanup_world_ world = world_of(LONG);
    struct side *source = &world->sides[SOURCE];
    int qemu = world_adds_qemu(world);

    world_sends(world, qemu, "memory");
    close(source->desk.broker);
    source->desk.broker = -1;
    world_sends(world, qemu, "+more");
    world_receives(world, world->qemu, "memory+more");
    finish(world, qemu);
    WORLD_WAIT(world, world->sides[DESTINATION].has_ended);
    assert_int_equal(world->sides[DESTINATION].error, VF_ERROR_NONE);
    close(qemu);
}

TEST(test_broker_is_gone_too_early)
{
    _cleanup_world_ world = world_of(LONG);

    close(world->sides[SOURCE].desk.broker);
    world->sides[SOURCE].desk.broker = -1;
    WORLD_WAIT(world, world->sides[DESTINATION].has_ended);
    assert_int_equal(world->sides[DESTINATION].error, VF_ERROR_HELPER_FAILED);
}

/* START that no broker of ours sends. */
TEST(test_impossible_start)
{
    struct message_start_relay starts[6];
    struct workers workers = WORKERS_NONE;
    struct session *session;
    struct stats *page;
    struct desk desk;

    desk_init(&desk);
    for (size_t i = 0; i < ELEMENTS(starts); i++)
        starts[i] = start_of(LONG);
    starts[0].role = 2;
    starts[1].security = 2;
    starts[2].n_streams = 0;
    starts[3].max_channels = STATS_CHANNELS_MAX + 1;
    starts[4].window = WINDOW_MIN - 1;
    memset(starts[5].streams[0], 'a', MESSAGE_STREAM_MAX);
    for (size_t i = 0; i < ELEMENTS(starts); i++) {
        assert_int_equal(session_new(desk.event, &desk.link, &workers, aeads_chosen(), &starts[i],
                                     stats_page(&page), &session),
                         -EBADMSG);
        munmap(page, sizeof(*page));
    }
    desk_clear(&desk);
}

/* ---- Setters ---- */

TEST(test_states_that_cannot_be)
{
    _cleanup_world_ world = world_of(LONG);
    struct session *session = world->sides[SOURCE].session;

    assert_int_equal(session->connection, CONNECTION_UP);
    assert_false(session_set_connection(session, CONNECTION_GREETING));
    assert_false(session_set_connection(session, CONNECTION_AWAITED));
    assert_false(session_set_connection(session, CONNECTION_DOWN));
    assert_int_equal(session->connection, CONNECTION_UP);
    assert_false(session->halted);
    session_set_state(session, STATE_WAITING);
    assert_int_equal(session->state, STATE_CONNECTED);
    session_set_state(session, STATE_FINISHED); /* session_end() alone finishes */
    assert_int_equal(session->state, STATE_CONNECTED);
    assert_true(session_set_connection(session, CONNECTION_BROKEN));
    assert_true(session->halted);
}

TEST(test_changes_are_logged)
{
    static const char *const lines[] = {"connection: awaited → greeting\n", "connection: greeting → up\n",
                                        "state: waiting → connected\n",     "channel 0: opening → open\n",
                                        "channel 0: open → proved\n",       "ending: none → over\n"};
    _cleanup_world_ world = world_of(LONG);
    int qemu = world_adds_qemu(world);

    world_sends(world, qemu, "memory");
    world_receives(world, world->qemu, "memory");
    finish(world, qemu);
    world_ends(world, VF_ERROR_NONE, VF_ERROR_NONE);
    close(qemu);
    for (size_t side = 0; side < 2; side++)
        for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
            assert_non_null(strstr(world->sides[side].desk.logged, lines[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_done),
        CASE(test_other_secret),
        CASE(test_stream_that_was_not_prepared),
        CASE(test_no_network_at_first),
        CASE(test_cancel),
        CASE(test_farewell),
        CASE(test_farewell_right_after_the_loss),
        CASE(test_farewell_after_another_loss),
        CASE(test_qemu_goes),
        CASE(test_new_broker),
        CASE(test_older_broker),
        CASE(test_new_broker_owes_nothing),
        CASE(test_kept),
        CASE(test_kept_nothing),
        CASE(test_broker_is_gone),
        CASE(test_broker_is_gone_too_early),
        CASE(test_impossible_start),
        CASE(test_states_that_cannot_be),
        CASE(test_changes_are_logged),
    };

    return cmocka_run_group_tests_name("helper-session-session", tests, NULL, NULL);
}
