/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flow-rig.h"

#include <signal.h>

/* In to QEMU through a pipe, and that nobody can make it block. */

static void rig_use_pipe(struct rig *rig)
{
    flow_use_pipe(&rig->in, rig_pipe(65536), 65536);
}

TEST(test_pipe)
{
    struct rig rig;
    uint64_t sent = 0, got = 0;

    rig_init(&rig);
    put(rig.peer, 0, 100); /* before the pipe was there */
    assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    sent = 100;
    rig_use_pipe(&rig);
    while (sent < 3000000) {
        sent += put(rig.peer, sent, 1 + test_random() % 100000);
        assert_int_equal(pump(&rig.in, 0), FLOW_OK);
        assert_int_equal(rig.in.ring.begin, rig.in.ring.cursor);
        got += (uint64_t)get(rig.qemu, got, 1 + test_random() % 100000);
    }
    assert_null(flow_on_fin(&rig.in, sent + 10, 1));
    put(rig.peer, sent, 20); /* ten too many */
    sent += 10;
    for (int i = 0; i < 10000 && !flow_ended(&rig.in); i++) {
        assert_int_equal(pump(&rig.in, 0), FLOW_OK);
        got += (uint64_t)get(rig.qemu, got, (size_t)(sent - got));
    }
    assert_true(flow_ended(&rig.in));
    got += (uint64_t)get(rig.qemu, got, (size_t)(sent - got));
    assert_int_equal(got, sent);
    assert_int_equal(get(rig.qemu, got, SIZE_MAX), -1);
    rig_clear(&rig);
}

/* A stream that never pauses must not keep the pipe waiting: nothing more is read until the ring is empty. */
TEST(test_pipe_of_a_busy_stream)
{
    struct rig rig;
    uint64_t sent = 0, got = 0;

    rig_init(&rig);
    for (int i = 0; i < 100 && flow_wants_input(&rig.in); i++) {
        sent += put(rig.peer, sent, 100000);
        assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    }
    assert_true(ring_unsent(&rig.in.ring) > 0);
    rig_use_pipe(&rig);
    assert_int_equal(rig.in.ring.pipe, -1);
    assert_false(flow_wants_input(&rig.in));
    for (int i = 0; i < 10000 && rig.in.ring.pipe < 0; i++) {
        sent += put(rig.peer, sent, 100000); /* there is always more */
        assert_true(flow_wants_output(&rig.in));
        got += (uint64_t)get(rig.qemu, got, 50000);
        assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    }
    assert_true(rig.in.ring.pipe >= 0);
    while (got < sent) {
        got += (uint64_t)get(rig.qemu, got, (size_t)(sent - got));
        assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    }
    rig_clear(&rig);
}

/* What came before QEMU was there goes out in turns; after the last of them the flow wants to read again. */
TEST(test_pipe_after_turns)
{
    struct rig rig;
    struct carrier *to;
    uint64_t sent = 0, got = 0;

    rig_init(&rig);
    to = rig.in.to;
    rig.in.to = NULL;
    while (sent < 300000) {
        sent += put(rig.peer, sent, 100000);
        assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    }
    rig_use_pipe(&rig);
    rig.in.to = to;
    for (int i = 0; i < 1000 && (got < sent || rig.in.ring.pipe < 0); i++) {
        /* As the loop of events: a flow that wants nothing is not looked at. */
        assert_true(flow_wants_input(&rig.in) || flow_wants_output(&rig.in));
        assert_int_equal(flow_pump(&rig.in, 0, 1000), FLOW_OK);
        got += (uint64_t)get(rig.qemu, got, SIZE_MAX);
    }
    assert_true(rig.in.ring.pipe >= 0);
    assert_int_equal(got, sent);
    rig_clear(&rig);
}

/* The peer connection is lost; the next one comes from a caller, which may hold it too. */
static void lose_peer(struct rig *rig)
{
    rig->in.from = rig->out.to = NULL;
    rig->to_peer = carrier_free(rig->to_peer);
    close_end(&rig->peer);
}

static void bring_peer(struct rig *rig, bool shared)
{
    int peer[2];

    test_pair(SOCK_STREAM, 0, peer);
    rig->peer = peer[0];
    assert_int_equal(carrier_raw_new(peer[1], &rig->to_peer), 0);
    rig->to_peer->shared = shared;
    rig->in.from = rig->out.to = rig->to_peer;
}

/* A pipe is left where a connection that cannot splice has come, once QEMU has what is in it; and is taken
 * again for one that can. */
TEST(test_pipe_left_when_empty)
{
    struct rig rig;
    uint64_t sent = 0, got = 0, received;

    rig_init(&rig);
    rig_use_pipe(&rig);
    for (int i = 0; i < 100 && flow_wants_input(&rig.in); i++) {
        sent += put(rig.peer, sent, 100000);
        assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    }
    assert_true(rig.in.ring.pipe >= 0 && !ring_is_empty(&rig.in.ring));
    lose_peer(&rig);
    assert_true(rig.in.ring.pipe >= 0); /* what will come is not known */
    sent = received = rig.in.ring.end;

    bring_peer(&rig, true);
    for (int i = 0; i < 10000 && !ring_is_empty(&rig.in.ring); i++) {
        sent += put(rig.peer, sent, 100000);
        assert_false(flow_wants_input(&rig.in));
        assert_true(flow_wants_output(&rig.in));
        got += (uint64_t)get(rig.qemu, got, 20000);
        assert_int_equal(flow_pump(&rig.in, 0, 1), FLOW_OK);
        assert_int_equal(rig.in.ring.end, received); /* nothing is read before */
    }
    assert_true(flow_wants_input(&rig.in)); /* or no poll would wake it */
    while (got < sent) {
        assert_int_equal(pump(&rig.in, 0), FLOW_OK);
        assert_int_equal(rig.in.ring.pipe, -1);
        got += (uint64_t)get(rig.qemu, got, SIZE_MAX);
    }
    assert_true(rig.in.pipe >= 0); /* it is kept */
    for (int i = 0; i < 100 && flow_wants_input(&rig.in); i++) {
        sent += put(rig.peer, sent, SIZE_MAX);
        assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    }
    assert_int_equal(rig.in.ring.end - rig.in.ring.begin, FLOW_BUFFER); /* memory holds more than the pipe */

    lose_peer(&rig);
    sent = rig.in.ring.end;
    bring_peer(&rig, false);
    while (rig.in.ring.pipe < 0) {
        assert_true(flow_wants_output(&rig.in));
        got += (uint64_t)get(rig.qemu, got, SIZE_MAX);
        assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    }
    assert_int_equal(rig.in.pipe, -1);
    sent += put(rig.peer, sent, 50000);
    while (got < sent) {
        assert_int_equal(pump(&rig.in, 0), FLOW_OK);
        got += (uint64_t)get(rig.qemu, got, SIZE_MAX);
    }
    rig_clear(&rig);
}

/* The end that was announced comes while the pipe still holds what is before it. */
TEST(test_pipe_left_at_the_end)
{
    struct rig rig;
    uint64_t sent = 0, got = 0;

    rig_init(&rig);
    rig_use_pipe(&rig);
    for (int i = 0; i < 100 && flow_wants_input(&rig.in); i++) {
        sent += put(rig.peer, sent, 100000);
        assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    }
    sent = rig.in.ring.end;
    assert_null(flow_on_fin(&rig.in, sent, 1));
    lose_peer(&rig);
    bring_peer(&rig, true);
    for (int i = 0; i < 10000 && !flow_ended(&rig.in); i++) {
        assert_int_equal(pump(&rig.in, 0), FLOW_OK);
        got += (uint64_t)get(rig.qemu, got, 10000);
    }
    assert_true(flow_ended(&rig.in));
    got += (uint64_t)get(rig.qemu, got, SIZE_MAX);
    assert_int_equal(got, sent);
    rig_clear(&rig);
}

/* One pump through a pipe ends, too, though the peer always has more and QEMU takes all. */
TEST(test_pipe_budget)
{
    struct rig rig;
    uint64_t sent = 0, got = 0;

    rig_init(&rig);
    rig_use_pipe(&rig);
    for (int i = 0; i < 100; i++) {
        uint64_t before = rig.in.ring.end;

        sent += put(rig.peer, sent, SIZE_MAX);
        rig.to_peer->readable = true;
        assert_int_equal(flow_pump(&rig.in, 0, FLOW_TURN), FLOW_OK);
        assert_in_range(rig.in.ring.end - before, 1, FLOW_TURN);
        got += (uint64_t)get(rig.qemu, got, SIZE_MAX);
    }
    rig_clear(&rig);
}

/* A pipe is full by its slots long before its bytes: many small pieces must not make it stand still. */
TEST(test_pipe_of_small_pieces)
{
    struct rig rig;
    uint64_t sent = 0, got = 0;

    rig_init(&rig);
    rig_use_pipe(&rig);
    for (int idle = 0; idle < 3;) {
        size_t n = put(rig.peer, sent, 7);

        sent += n;
        idle = n > 0 ? 0 : idle + 1;
        assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    }
    assert_true(rig.in.ring.end > rig.in.ring.begin);
    assert_false(flow_wants_input(&rig.in)); /* or the loop would spin on it */
    assert_true(flow_wants_output(&rig.in));
    assert_null(flow_on_fin(&rig.in, sent, 1));
    for (int i = 0; i < 1000000 && !flow_ended(&rig.in); i++) {
        got += (uint64_t)get(rig.qemu, got, 1000);
        assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    }
    assert_true(flow_ended(&rig.in));
    rig_clear(&rig);
}

TEST(test_pipe_losses)
{
    struct rig rig;

    signal(SIGPIPE, SIG_IGN); /* as sandbox_isolate() does */
    rig_init(&rig);
    rig_use_pipe(&rig);
    put(rig.peer, 0, 100);
    shutdown(rig.peer, SHUT_WR);
    assert_int_equal(pump(&rig.in, 0), FLOW_FROM_LOST);
    assert_int_equal(get(rig.qemu, 0, SIZE_MAX), 100);
    rig_clear(&rig);

    rig_init(&rig);
    rig_use_pipe(&rig);
    put(rig.peer, 0, 100);
    close_end(&rig.qemu);
    assert_int_equal(pump(&rig.in, 0), FLOW_TO_LOST);
    rig_clear(&rig);
    signal(SIGPIPE, SIG_DFL);
}

/* Before a byte out of band splice(2) stands still, while the poll says that there is something. */
TEST(test_pipe_out_of_band)
{
    struct rig rig;
    int qemu[2], peer[2];
    enum flow_verdict verdict = FLOW_OK;

    test_pair(SOCK_STREAM, 0, qemu);
    test_tcp_pair(peer);
    rig_init_on(&rig, qemu, peer);
    rig_use_pipe(&rig);
    put(rig.peer, 0, 100);
    assert_int_equal(send(rig.peer, "!", 1, MSG_OOB), 1);
    put(rig.peer, 100, 100);
    for (int i = 0; i < 1000 && verdict == FLOW_OK; i++)
        verdict = pump(&rig.in, 0);
    assert_int_equal(verdict, FLOW_FROM_LOST);
    assert_int_equal(get(rig.qemu, 0, SIZE_MAX), 100);
    rig_clear(&rig);
}

/* Who else holds a socket may flip O_NONBLOCK at any time (THREATS.md, 2): it must not stop the helper. */
static void expect_no_block(bool use_pipe, bool tcp)
{
    struct rig rig;
    int qemu[2], peer[2], status;
    pid_t pid;

    if (tcp) {
        test_tcp_pair(qemu);
        test_tcp_pair(peer);
    } else {
        test_pair(SOCK_STREAM, 0, qemu);
        test_pair(SOCK_STREAM, 0, peer);
    }
    rig_init_on(&rig, qemu, peer);
    rig.to_peer->shared = rig.to_qemu->shared = true;
    if (use_pipe) /* is not taken then: splice(2) blocks where recvmsg(2) has MSG_DONTWAIT */
        rig_use_pipe(&rig);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        uint64_t sent = 0;
        int ok = 1;

        alarm(2);
        signal(SIGPIPE, SIG_IGN);
        fcntl(qemu[1], F_SETFL, 0);
        fcntl(peer[1], F_SETFL, 0);
        rig.to_peer->readable = rig.to_qemu->readable = true;
        /* With nothing to read, and then with nobody who reads. */
        ok = ok && flow_pump(&rig.in, 0, FLOW_BUDGET) == FLOW_OK &&
             flow_pump(&rig.out, 0, FLOW_BUDGET) == FLOW_OK;
        for (int i = 0; i < 200; i++) {
            sent += put(peer[0], sent, 100000);
            ok = ok && pump(&rig.in, 0) == FLOW_OK;
        }
        _exit(!ok);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    rig_clear(&rig);
    if (WIFSIGNALED(status))
        fail_msg("it blocks (%s)", strsignal(WTERMSIG(status)));
    assert_int_equal(status, 0);
}

TEST(test_nonblock_flipped)
{
    expect_no_block(false, false);
    expect_no_block(false, true);
}

TEST(test_nonblock_flipped_with_pipe)
{
    expect_no_block(true, false);
}

TEST(test_nonblock_flipped_with_pipe_and_tcp)
{
    expect_no_block(true, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_pipe),
        CASE(test_pipe_of_a_busy_stream),
        CASE(test_pipe_of_small_pieces),
        CASE(test_pipe_losses),
        CASE(test_pipe_after_turns),
        CASE(test_pipe_left_when_empty),
        CASE(test_pipe_left_at_the_end),
        CASE(test_pipe_budget),
        CASE(test_pipe_out_of_band),
        CASE(test_nonblock_flipped),
        CASE(test_nonblock_flipped_with_pipe),
        CASE(test_nonblock_flipped_with_pipe_and_tcp),
    };

    return cmocka_run_group_tests_name("flow-pipe", tests, NULL, NULL);
}
