/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flow-rig.h"

/* A peer that lies, and connections that are lost. */

TEST(test_ack_lies)
{
    struct rig rig;

    rig_init(&rig);
    assert_non_null(flow_on_ack(&rig.out, 1)); /* before anything */
    put(rig.qemu, 0, 1000);
    assert_int_equal(pump(&rig.out, 0), FLOW_OK);
    assert_string_equal(flow_on_ack(&rig.out, 1001), "an ACK of more than was sent");
    assert_string_equal(flow_on_ack(&rig.out, UINT64_MAX), "an ACK of more than was sent");
    assert_null(flow_on_ack(&rig.out, 500));
    assert_string_equal(flow_on_ack(&rig.out, 499), "an ACK of less than was acknowledged before");
    assert_string_equal(flow_on_ack(&rig.out, 0), "an ACK of less than was acknowledged before");
    assert_null(flow_on_ack(&rig.out, 500)); /* the same once more is no lie */
    assert_int_equal(rig.out.ring.begin, 500);
    rig_clear(&rig);
}

/* What is held but has not gone out cannot have been delivered. */
TEST(test_ack_of_what_was_not_sent)
{
    struct rig rig;
    uint64_t sent = 0;

    rig_init(&rig);
    for (int i = 0; i < 40; i++) {
        sent += put(rig.qemu, sent, SIZE_MAX);
        assert_int_equal(pump(&rig.out, 0), FLOW_OK);
    }
    assert_true(rig.out.ring.cursor < rig.out.ring.end);
    assert_non_null(flow_on_ack(&rig.out, rig.out.ring.end));
    assert_non_null(flow_on_ack(&rig.out, rig.out.ring.cursor + 1));
    assert_null(flow_on_ack(&rig.out, rig.out.ring.cursor));
    rig_clear(&rig);
}

TEST(test_fin_lies)
{
    struct rig rig;

    rig_init(&rig);
    put(rig.peer, 0, 1000);
    assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    assert_string_equal(flow_on_fin(&rig.in, 999, 1), "a FIN at less than was sent");
    assert_string_equal(flow_on_fin(&rig.in, 0, 1), "a FIN at less than was sent");
    assert_false(rig.in.ending);
    assert_null(flow_on_fin(&rig.in, UINT64_MAX, 1)); /* it may mean it; then it never ends */
    assert_string_equal(flow_on_fin(&rig.in, 1000, 1), "a second FIN for a channel");
    assert_string_equal(flow_on_fin(&rig.in, UINT64_MAX, 1), "a second FIN for a channel");
    assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    assert_false(flow_ended(&rig.in));
    rig_clear(&rig);
}

/* A bare EOF of a peer connection is a loss, also with a FIN that is not reached yet. */
TEST(test_eof_of_the_peer)
{
    for (int fin = 0; fin < 2; fin++) {
        struct rig rig;
        enum flow_verdict verdict;

        rig_init(&rig);
        put(rig.peer, 0, 1000);
        if (fin)
            assert_null(flow_on_fin(&rig.in, 1001, 1));
        shutdown(rig.peer, SHUT_WR);
        verdict = pump(&rig.in, 0);
        if (verdict == FLOW_OK)
            verdict = pump(&rig.in, 0);
        assert_int_equal(verdict, FLOW_FROM_LOST);
        assert_false(flow_ended(&rig.in));
        assert_int_equal(get(rig.qemu, 0, SIZE_MAX), 1000); /* what came is delivered, but no end is said */
        assert_int_equal(get(rig.qemu, 0, SIZE_MAX), 0);
        rig_clear(&rig);
    }
}

/* ... and with all there, it is none. */
TEST(test_eof_of_the_peer_after_all)
{
    struct rig rig;

    rig_init(&rig);
    assert_null(flow_on_fin(&rig.in, 1000, 1));
    put(rig.peer, 0, 1000);
    close_end(&rig.peer);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    assert_true(flow_ended(&rig.in));
    rig_clear(&rig);
}

TEST(test_qemu_is_gone)
{
    struct rig rig;

    rig_init(&rig);
    close_end(&rig.qemu);
    put(rig.peer, 0, 1000);
    assert_int_equal(pump(&rig.in, 0), FLOW_TO_LOST);
    rig_clear(&rig);
}

TEST(test_peer_is_gone)
{
    struct rig rig;

    rig_init(&rig);
    put(rig.qemu, 0, 1000);
    close_end(&rig.peer);
    assert_int_equal(pump(&rig.out, 0), FLOW_TO_LOST);
    assert_int_equal(rig.out.ring.end, 1000); /* all of it is there for another connection */
    assert_int_equal(rig.out.ring.cursor, 0);
    rig_clear(&rig);
}

/* A reset is no end: QEMU that died must not look like one that is done. */
TEST(test_reset_is_no_eof)
{
    for (int which = 0; which < 2; which++) {
        const struct linger hard = {.l_onoff = 1, .l_linger = 0};
        int qemu[2], peer[2], *fd;
        struct rig rig;

        test_tcp_pair(qemu);
        test_tcp_pair(peer);
        rig_init_on(&rig, qemu, peer);
        fd = which == 0 ? &rig.qemu : &rig.peer;
        assert_int_equal(setsockopt(*fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)), 0);
        close_end(fd);
        assert_int_equal(pump(which == 0 ? &rig.out : &rig.in, 0), FLOW_FROM_LOST);
        assert_false(rig.out.ending);
        rig_clear(&rig);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_ack_lies),        CASE(test_ack_of_what_was_not_sent),  CASE(test_fin_lies),
        CASE(test_eof_of_the_peer), CASE(test_eof_of_the_peer_after_all), CASE(test_qemu_is_gone),
        CASE(test_peer_is_gone),    CASE(test_reset_is_no_eof),
    };

    return cmocka_run_group_tests_name("flow-faults", tests, NULL, NULL);
}
