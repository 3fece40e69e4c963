/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "session-rig.h"

#include "helper/session/failure.h"
#include "helper/session/frames.h"

/* Connections that the source makes and that fail; and what is done once a second. */

static void expect_end(struct world *world, enum vf_error error, const char *words)
{
    WORLD_WAIT(world, world->sides[SOURCE].has_ended);
    assert_int_equal(world->sides[SOURCE].error, error);
    if (!strstr(world->sides[SOURCE].why, words))
        fail_msg("'%s' has no '%s'", world->sides[SOURCE].why, words);
}

/* What the gate says of the first connection is what the caller reads. */
TEST(test_first_connection_is_rejected)
{
    static const struct {
        enum vf_error said, error;
        const char *words;
    } cases[] = {
        {VF_ERROR_TICKET_USED, VF_ERROR_TICKET_USED, "has been used"},
        {VF_ERROR_TICKET_EXPIRED, VF_ERROR_TICKET_EXPIRED, "has expired"},
        {VF_ERROR_PROTOCOL_MISMATCH, VF_ERROR_PROTOCOL_MISMATCH, "another version"},
        {VF_ERROR_CANCELLED, VF_ERROR_PEER_REJECTED, "does not expect"},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        _cleanup_world_ world = world_make();

        world->rejects = cases[i].said;
        world_start(world, start_of(LONG), start_of(LONG));
        expect_end(world, cases[i].error, cases[i].words);
    }
}

TEST(test_first_connection_is_hung_up_on)
{
    _cleanup_world_ world = world_make();

    world->hangs_up = true;
    world_start(world, start_of(LONG), start_of(LONG));
    expect_end(world, VF_ERROR_PEER_REJECTED, "during the handshake");
}

TEST(test_peer_does_not_answer)
{
    _cleanup_world_ world = world_make();

    world->rejects = VF_ERROR_TICKET_USED;
    side_start(&world->sides[SOURCE], start_of(LONG), ROLE_OUTGOING);
    side_start(&world->sides[DESTINATION], start_of(LONG), ROLE_INCOMING);
    session_on_peer_failed(world->sides[SOURCE].session,
                           &(struct peer_failure){.kind = PEER_CONTROL, .error = -ETIMEDOUT});
    expect_end(world, VF_ERROR_PEER_UNREACHABLE, "did not answer");
}

TEST(test_too_many_connections)
{
    _cleanup_world_ world = world_of(LONG);

    session_on_peer_failed(world->sides[SOURCE].session,
                           &(struct peer_failure){.kind = PEER_CHANNEL, .error = -EMFILE});
    expect_end(world, VF_ERROR_LIMIT_EXCEEDED, "More than");
}

/* A channel's: the network may come back; but what cannot be is the end. One of a channel that ended is
 * nothing. */
TEST(test_connection_of_a_channel)
{
    const struct peer_failure unknown = {.kind = PEER_CHANNEL, .channel = 9, .error = -ECONNRESET},
                              lie = {.kind = PEER_CHANNEL, .channel = 0, .error = -EBADMSG};
    _cleanup_world_ world = world_of(LONG);
    struct side *source = &world->sides[SOURCE];
    int qemu = world_adds_qemu(world), other;

    world_sends(world, qemu, "memory");
    session_on_peer_failed(source->session, &unknown);
    assert_int_equal(source->session->connection, CONNECTION_UP);
    world->hangs_up = true;
    world->n_dialled = 0;
    other = world_adds_qemu(world);
    WORLD_WAIT(world, source->state == STATE_INTERRUPTED);
    assert_in_range(world->n_dialled, DIALS_MAX, DIALS_MAX + 1); /* and the one that is to follow */
    world->hangs_up = false;
    WORLD_WAIT(world, world->sides[DESTINATION].page->reconnects == 1);
    assert_false(source->has_ended);
    session_on_peer_failed(source->session, &lie);
    expect_end(world, VF_ERROR_PROTOCOL_MISMATCH, "what cannot be");
    close(qemu);
    close(other);
}

/* Before its proof it may be anyone's doing who knows the id: it alone is dialled again. */
TEST(test_connection_of_a_channel_is_dialled_again)
{
    static const struct {
        bool hangs_up;
        enum vf_error rejects;
        bool down;
    } ways[] = {{.hangs_up = true}, {.rejects = VF_ERROR_NO_SUCH_MIGRATION}, {.down = true}};

    for (size_t i = 0; i < ELEMENTS(ways); i++) {
        _cleanup_world_ world = world_of(LONG);
        int qemu;

        world->hangs_up = ways[i].hangs_up;
        world->rejects = ways[i].rejects;
        world->down = ways[i].down;
        world->n_dialled = 0;
        qemu = world_adds_qemu(world);
        WORLD_WAIT(world, world->n_dialled > 2);
        assert_true(world->qemu < 0);
        world->hangs_up = world->down = false;
        world->rejects = VF_ERROR_NONE;
        assert_int_equal(send(qemu, "memory", 6, MSG_NOSIGNAL), 6);
        WORLD_WAIT(world, world->qemu >= 0);
        world_receives(world, world->qemu, "memory");
        assert_int_equal(world->sides[DESTINATION].page->reconnects, 0);
        finish(world, qemu);
        world_ends(world, VF_ERROR_NONE, VF_ERROR_NONE);
        close(qemu);
    }
}

/* So is the first control connection, if the test's gate lets the second one in. */
TEST(test_first_connection_is_dialled_again)
{
    _cleanup_world_ world = world_make();
    int qemu;

    world->hangs_up = true;
    side_start(&world->sides[SOURCE], start_of(LONG), ROLE_OUTGOING);
    side_start(&world->sides[DESTINATION], start_of(LONG), ROLE_INCOMING);
    WORLD_WAIT(world, world->sides[SOURCE].session->redial.n_first > 0);
    world->hangs_up = false;
    WORLD_WAIT(world, world->sides[SOURCE].state == STATE_CONNECTED);
    qemu = world_adds_qemu(world);
    world_sends(world, qemu, "memory");
    finish(world, qemu);
    world_ends(world, VF_ERROR_NONE, VF_ERROR_NONE);
    close(qemu);
}

/* That its ticket is used says something else where that may have been by this side's own connection. */
TEST(test_ticket_that_was_used)
{
    for (int lost = 0; lost < 2; lost++) {
        struct frame used = {.type = FRAME_ABORT,
                             .refusal = {.error = VF_ERROR_TICKET_USED, .text = "Used."}};
        _cleanup_world_ world = world_make();
        struct session *session;

        world->hangs_up = true;
        side_start(&world->sides[SOURCE], start_of(LONG), ROLE_OUTGOING);
        side_start(&world->sides[DESTINATION], start_of(LONG), ROLE_INCOMING);
        session = world->sides[SOURCE].session;
        WORLD_WAIT(world, session->redial.n_first > 0);
        if (lost)
            strcpy(session->why, "The connection was lost.");
        session_on_frame(session, &used);
        expect_end(world, lost ? VF_ERROR_INTERRUPTED : VF_ERROR_TICKET_USED, lost ? "was lost" : "Used.");
    }
}

/* A side whose broker knows no marks goes without, and so does its peer. */
TEST(test_sides_of_two_ages)
{
    for (size_t i = 0; i < 2; i++) {
        _cleanup_world_ world = world_make();
        int qemu;

        world->sides[i].is_old = true;
        world_start(world, start_of(LONG), start_of(LONG));
        qemu = world_adds_qemu(world);
        world_sends(world, qemu, "memory");
        world_cuts(world);
        WORLD_WAIT(world, world->sides[DESTINATION].page->reconnects == 1);
        finish(world, qemu);
        world_ends(world, VF_ERROR_NONE, VF_ERROR_NONE);
        close(qemu);
    }
}

/* One rejection of a connection that is to follow may be anyone's on the way: three in a row count. */
TEST(test_migration_was_given_up)
{
    _cleanup_world_ world = world_of(LONG);
    int qemu = world_adds_qemu(world);

    world_sends(world, qemu, "memory");
    world->rejects = VF_ERROR_PEER_REJECTED;
    world_cuts(world);
    assert_false(world->sides[SOURCE].has_ended);
    expect_end(world, VF_ERROR_INTERRUPTED, "given this migration up");
    close(qemu);
}

/* In a row: what was said before the peer was met again does not count. */
TEST(test_rejections_are_forgotten)
{
    _cleanup_world_ world = world_of(LONG);
    struct session *session = world->sides[SOURCE].session;
    int qemu = world_adds_qemu(world);

    world_sends(world, qemu, "memory");
    for (int i = 0; i < 2; i++) {
        world->rejects = VF_ERROR_PEER_REJECTED;
        world_cuts(world);
        WORLD_WAIT(world, session->redial.n_rejections == REJECTIONS_MAX - 1);
        world->rejects = VF_ERROR_NONE;
        WORLD_WAIT(world, session->connection == CONNECTION_UP);
        assert_int_equal(session->redial.n_rejections, 0);
    }
    assert_false(world->sides[SOURCE].has_ended);
    close(qemu);
}

TEST(test_cancelled_meanwhile)
{
    _cleanup_world_ world = world_of(LONG);
    int qemu = world_adds_qemu(world);

    world_sends(world, qemu, "memory");
    world->rejects = VF_ERROR_CANCELLED;
    world_cuts(world);
    expect_end(world, VF_ERROR_CANCELLED, "Cancelled at the destination");
    close(qemu);
}

/* ---- Once a second ---- */

TEST(test_tick)
{
    _cleanup_world_ world = world_of(LONG);
    struct stats *pages[] = {world->sides[SOURCE].page, world->sides[DESTINATION].page};
    int qemu = world_adds_qemu(world);

    world_sends(world, qemu, "memory");
    for (size_t i = 0; i < 2; i++) {
        WORLD_WAIT(world, STATS_READ(pages[i]->rate_at_usec) > 0);
        WORLD_WAIT(world, STATS_READ(pages[i]->round_trip_usec) > 0);
        assert_true(STATS_READ(pages[i]->rate) > 0);
    }
    close(qemu);
}

/* ---- Workers ---- */

/* The first channel stays with the first thread; those beside it go to workers, and come through cuts. */
TEST(test_channels_of_workers)
{
    _cleanup_world_ world = world_make();
    int qemus[3], theirs[3];

    for (size_t i = 0; i < 2; i++)
        world->sides[i].has_workers = true;
    world_start(world, start_of(LONG), start_of(LONG));
    for (size_t i = 0; i < 3; i++) {
        qemus[i] = world_adds_qemu(world);
        world->qemu = -1;
        assert_int_equal(send(qemus[i], "memory", 6, MSG_NOSIGNAL), 6);
        WORLD_WAIT(world, world->qemu >= 0);
        theirs[i] = world->qemu;
    }
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < 3; i++) {
            struct pollfd readable = {.fd = theirs[i], .events = POLLIN};
            char buf[16];

            WORLD_WAIT(world, poll(&readable, 1, 0) > 0);
            assert_int_equal(recv(theirs[i], buf, sizeof(buf), MSG_DONTWAIT), 6);
        }
        world_cuts(world);
        WORLD_WAIT(world, world->sides[SOURCE].page->reconnects == (uint32_t)round + 1);
        for (size_t i = 0; i < 3; i++)
            assert_int_equal(send(qemus[i], "memory", 6, MSG_NOSIGNAL), 6);
    }
    for (size_t i = 0; i < 3; i++) {
        shutdown(qemus[i], SHUT_WR);
        shutdown(theirs[i], SHUT_WR);
    }
    world_ends(world, VF_ERROR_NONE, VF_ERROR_NONE);
    assert_int_equal(world->sides[SOURCE].page->sent, 4 * 3 * 6);
    assert_int_equal(world->sides[DESTINATION].page->received, 4 * 3 * 6);
    for (size_t i = 0; i < 3; i++) {
        close(qemus[i]);
        if (i < 2)
            close(theirs[i]);
    }
}

/* Four windows' worth pass through a channel that a worker has: it hears of each acknowledgement. */
TEST(test_acknowledgements_for_a_worker)
{
    static uint8_t block[65536];
    const size_t size = 4 << 20;
    _cleanup_world_ world = world_make();
    int qemus[2], theirs[2];
    size_t sent = 0, got = 0;

    for (size_t i = 0; i < 2; i++)
        world->sides[i].has_workers = true;
    world_start(world, start_of(LONG), start_of(LONG));
    for (size_t i = 0; i < 2; i++) {
        qemus[i] = world_adds_qemu(world);
        world->qemu = -1;
        assert_int_equal(send(qemus[i], "", 1, MSG_NOSIGNAL), 1);
        WORLD_WAIT(world, world->qemu >= 0);
        theirs[i] = world->qemu;
    }
    for (int i = 0; i < 20000 && (sent < size || got < sent + 1); i++) {
        ssize_t n;

        while (sent < size && (n = send(qemus[1], block, sizeof(block), MSG_DONTWAIT | MSG_NOSIGNAL)) > 0)
            sent += (size_t)n;
        while ((n = recv(theirs[1], block, sizeof(block), MSG_DONTWAIT)) > 0)
            got += (size_t)n;
        world_run(world);
        poll(NULL, 0, 1);
    }
    assert_int_equal(got, sent + 1);
    for (size_t i = 0; i < 2; i++) {
        shutdown(qemus[i], SHUT_WR);
        shutdown(theirs[i], SHUT_WR);
    }
    world_ends(world, VF_ERROR_NONE, VF_ERROR_NONE);
    close(qemus[0]);
    close(qemus[1]);
    close(theirs[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_first_connection_is_rejected),
        CASE(test_first_connection_is_hung_up_on),
        CASE(test_peer_does_not_answer),
        CASE(test_too_many_connections),
        CASE(test_connection_of_a_channel),
        CASE(test_migration_was_given_up),
        CASE(test_connection_of_a_channel_is_dialled_again),
        CASE(test_first_connection_is_dialled_again),
        CASE(test_ticket_that_was_used),
        CASE(test_sides_of_two_ages),
        CASE(test_rejections_are_forgotten),
        CASE(test_cancelled_meanwhile),
        CASE(test_tick),
        CASE(test_channels_of_workers),
        CASE(test_acknowledgements_for_a_worker),
    };

    return cmocka_run_group_tests_name("helper-session-failures", tests, NULL, NULL);
}
