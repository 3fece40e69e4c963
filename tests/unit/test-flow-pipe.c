/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flow-rig.h"

#include <signal.h>

/* In to QEMU through a pipe, and that nobody can make it block. */

static void rig_use_pipe(struct rig *rig)
{
    flow_use_pipe(&rig->in, rig_pipe(65536), 65536, NULL);
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
    assert_null(flow_on_fin(&rig.in, sent + 10));
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
    assert_null(flow_on_fin(&rig.in, sent));
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
        CASE(test_pipe_out_of_band),
        CASE(test_nonblock_flipped),
        CASE(test_nonblock_flipped_with_pipe),
        CASE(test_nonblock_flipped_with_pipe_and_tcp),
    };

    return cmocka_run_group_tests_name("flow-pipe", tests, NULL, NULL);
}
