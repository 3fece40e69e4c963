/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flow-rig.h"

TEST(test_out)
{
    struct rig rig;

    rig_init(&rig);
    assert_true(flow_wants_input(&rig.out));
    assert_false(flow_wants_output(&rig.out));
    put(rig.qemu, 0, 5000);
    assert_int_equal(pump(&rig.out, 0), FLOW_OK);
    assert_int_equal(get(rig.peer, 0, SIZE_MAX), 5000);
    assert_int_equal(rig.out.ring.end, 5000);
    assert_int_equal(rig.out.ring.cursor, 5000);
    assert_int_equal(rig.out.ring.begin, 0); /* kept until it is acknowledged */

    assert_null(flow_on_ack(&rig.out, 3000));
    assert_int_equal(rig.out.ring.begin, 3000);
    assert_int_equal(shutdown(rig.qemu, SHUT_WR), 0);
    assert_int_equal(pump(&rig.out, 0), FLOW_OK);
    assert_true(rig.out.ending);
    assert_int_equal(rig.out.total, 5000);
    assert_false(flow_ended(&rig.out));
    assert_false(flow_wants_input(&rig.out)); /* an EOF would be polled for ever */
    assert_null(flow_on_ack(&rig.out, 4999));
    assert_false(flow_ended(&rig.out));
    assert_null(flow_on_ack(&rig.out, 5000));
    assert_true(flow_ended(&rig.out));
    assert_int_equal(get(rig.peer, 0, SIZE_MAX), 0); /* what ends the peer's flow is FIN: no EOF is sent */
    rig_clear(&rig);
}

TEST(test_in)
{
    struct rig rig;

    rig_init(&rig);
    put(rig.peer, 0, 5000);
    assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    assert_int_equal(get(rig.qemu, 0, SIZE_MAX), 5000);
    assert_int_equal(rig.in.ring.begin, 5000); /* delivered is forgotten */
    assert_false(flow_ended(&rig.in));
    assert_null(flow_on_fin(&rig.in, 5000, 1)); /* after its data */
    assert_false(flow_ended(&rig.in));
    assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    assert_true(flow_ended(&rig.in));
    assert_int_equal(get(rig.qemu, 5000, SIZE_MAX), -1);
    assert_false(flow_wants_input(&rig.in));
    rig_clear(&rig);
}

/* libvirt's own calls: a client that has gone, with an answer that it has not read, costs its channel alone.
 */
TEST(what_is_expendable_breaks_off_as_an_end)
{
    struct rig rig;

    rig_init(&rig);
    rig.out.expendable = rig.in.expendable = true;
    put(rig.peer, 0, 3000);
    assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    close_end(&rig.qemu); /* with 3000 bytes unread: a reset */
    assert_int_equal(pump(&rig.out, 0), FLOW_OK);
    assert_true(rig.out.ending);
    assert_int_equal(rig.out.total, 0);
    put(rig.peer, 3000, 2000);
    assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    assert_int_equal(rig.in.ring.begin, 5000);
    assert_null(flow_on_fin(&rig.in, 5000, 1));
    assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    assert_true(flow_ended(&rig.in));
    rig_clear(&rig);
}

/* For QEMU may have shut down no more than its reading, and would take it for the end of all. */
TEST(what_was_dropped_is_followed_by_no_end)
{
    struct rig rig;
    int fresh[2];

    rig_init(&rig);
    rig.in.expendable = true;
    close_end(&rig.qemu);
    put(rig.peer, 0, 2000);
    assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    assert_int_equal(rig.in.dropped, 2000);
    test_pair(SOCK_STREAM, 0, fresh);
    assert_int_equal(dup2(fresh[1], rig.to_qemu->fd), rig.to_qemu->fd);
    close_end(&fresh[1]);
    assert_null(flow_on_fin(&rig.in, 2000, 1));
    assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    assert_true(flow_ended(&rig.in));
    assert_int_equal(get(fresh[0], 0, SIZE_MAX), 0);
    close_end(&fresh[0]);
    rig_clear(&rig);
}

TEST(test_fin_before_its_data)
{
    struct rig rig;

    rig_init(&rig);
    assert_null(flow_on_fin(&rig.in, 5000, 1));
    assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    put(rig.peer, 0, 4999);
    assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    assert_int_equal(get(rig.qemu, 0, SIZE_MAX), 4999);
    assert_int_equal(get(rig.qemu, 0, SIZE_MAX), 0);
    assert_false(flow_ended(&rig.in));
    assert_true(flow_wants_input(&rig.in));
    put(rig.peer, 4999, 1);
    assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    assert_int_equal(get(rig.qemu, 4999, SIZE_MAX), 1);
    assert_int_equal(get(rig.qemu, 0, SIZE_MAX), -1);
    assert_true(flow_ended(&rig.in));
    rig_clear(&rig);
}

TEST(test_fin_of_nothing)
{
    struct rig rig;

    rig_init(&rig);
    assert_null(flow_on_fin(&rig.in, 0, 1));
    assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    assert_true(flow_ended(&rig.in));
    assert_int_equal(get(rig.qemu, 0, SIZE_MAX), -1);
    rig_clear(&rig);

    rig_init(&rig);
    shutdown(rig.qemu, SHUT_WR);
    assert_int_equal(pump(&rig.out, 0), FLOW_OK);
    assert_true(rig.out.ending);
    assert_int_equal(rig.out.total, 0);
    assert_true(flow_ended(&rig.out));
    rig_clear(&rig);
}

/* A peer that sends on after its FIN: no byte of that reaches QEMU. */
TEST(test_nothing_beyond_fin)
{
    struct rig rig;

    rig_init(&rig);
    assert_null(flow_on_fin(&rig.in, 1000, 1));
    put(rig.peer, 0, 3000);
    for (int i = 0; i < 3; i++)
        assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    assert_int_equal(get(rig.qemu, 0, SIZE_MAX), 1000);
    assert_int_equal(get(rig.qemu, 0, SIZE_MAX), -1);
    assert_true(flow_ended(&rig.in));
    assert_int_equal(rig.in.ring.end, 1000);
    rig_clear(&rig);
}

/* Each direction ends alone; the other goes on. */
TEST(test_half_close)
{
    for (int first = 0; first < 2; first++) {
        struct rig rig;

        rig_init(&rig);
        put(rig.qemu, 0, 100);
        put(rig.peer, 0, 200);
        if (first == 0)
            shutdown(rig.qemu, SHUT_WR);
        else
            assert_null(flow_on_fin(&rig.in, 200, 1));
        for (int i = 0; i < 2; i++) { /* an end that comes with the data may be seen only by the next poll */
            assert_int_equal(pump(&rig.out, 0), FLOW_OK);
            assert_int_equal(pump(&rig.in, 0), FLOW_OK);
        }
        assert_int_equal(get(rig.peer, 0, SIZE_MAX), 100);
        assert_int_equal(get(rig.qemu, 0, 200), 200);
        assert_int_equal(rig.out.ending, first == 0);
        assert_int_equal(rig.in.shut, first == 1);

        if (first == 0) {
            put(rig.peer, 200, 300);
            assert_int_equal(pump(&rig.in, 0), FLOW_OK);
            assert_int_equal(get(rig.qemu, 200, SIZE_MAX), 300);
            assert_null(flow_on_fin(&rig.in, 500, 1));
            assert_int_equal(pump(&rig.in, 0), FLOW_OK);
        } else {
            assert_int_equal(get(rig.qemu, 0, SIZE_MAX), -1);
            put(rig.qemu, 100, 300);
            assert_int_equal(pump(&rig.out, 0), FLOW_OK);
            assert_int_equal(get(rig.peer, 100, SIZE_MAX), 300);
            shutdown(rig.qemu, SHUT_WR);
            assert_int_equal(pump(&rig.out, 0), FLOW_OK);
        }
        assert_null(flow_on_ack(&rig.out, rig.out.total));
        assert_true(flow_ended(&rig.out));
        assert_true(flow_ended(&rig.in));
        rig_clear(&rig);
    }
}

/* QEMU writes and closes at once: all of it arrives, then the end. */
TEST(test_data_and_eof_at_once)
{
    struct rig rig;
    size_t size;

    rig_init(&rig);
    size = put(rig.qemu, 0, 150000);
    close_end(&rig.qemu);
    assert_int_equal(pump(&rig.out, 0), FLOW_OK);
    assert_int_equal(pump(&rig.out, 0), FLOW_OK);
    assert_true(rig.out.ending);
    assert_int_equal(rig.out.total, size);
    assert_int_equal(get(rig.peer, 0, SIZE_MAX), (ssize_t)size);
    rig_clear(&rig);
}

/* Nobody reads at the other end: what is held is bounded, and QEMU's writes stop. */
TEST(test_back_pressure_out)
{
    struct rig rig;
    uint64_t sent = 0, got = 0, acked = 0;

    rig_init(&rig);
    for (int idle = 0; idle < 3;) {
        size_t n = put(rig.qemu, sent, SIZE_MAX);

        sent += n;
        idle = n > 0 ? 0 : idle + 1;
        assert_int_equal(pump(&rig.out, 0), FLOW_OK);
        assert_true(rig.out.ring.end - rig.out.ring.begin <= WINDOW);
    }
    assert_int_equal(rig.out.ring.end, WINDOW);
    assert_true(sent > WINDOW && sent < WINDOW + 1000000);
    assert_false(flow_wants_input(&rig.out));
    assert_true(flow_wants_output(&rig.out));

    /* The peer reads but does not acknowledge: no more is taken from QEMU. */
    for (ssize_t n = 1; n > 0;) {
        n = get(rig.peer, got, SIZE_MAX);
        got += (uint64_t)n;
        assert_int_equal(pump(&rig.out, 0), FLOW_OK);
    }
    assert_int_equal(got, WINDOW);
    assert_false(flow_wants_input(&rig.out));
    assert_false(flow_wants_output(&rig.out));

    /* It acknowledges, and all goes on to the end. */
    shutdown(rig.qemu, SHUT_WR);
    while (!flow_ended(&rig.out)) {
        assert_true(acked < sent);
        acked = got;
        assert_null(flow_on_ack(&rig.out, acked));
        assert_int_equal(pump(&rig.out, 0), FLOW_OK);
        got += (uint64_t)get(rig.peer, got, SIZE_MAX);
    }
    assert_int_equal(got, sent);
    assert_true(rig.pool.n_free <= rig.pool.max_free);
    rig_clear(&rig);
}

TEST(test_back_pressure_in)
{
    struct rig rig;
    uint64_t sent = 0, got = 0;

    rig_init(&rig);
    for (int idle = 0; idle < 3;) {
        size_t n = put(rig.peer, sent, SIZE_MAX);

        sent += n;
        idle = n > 0 ? 0 : idle + 1;
        assert_int_equal(pump(&rig.in, 0), FLOW_OK);
        assert_true(rig.in.ring.end - rig.in.ring.begin <= FLOW_BUFFER);
    }
    assert_int_equal(rig.in.ring.end - rig.in.ring.begin, FLOW_BUFFER);
    assert_false(flow_wants_input(&rig.in));
    assert_true(flow_wants_output(&rig.in));
    assert_null(flow_on_fin(&rig.in, sent, 1));
    while (!flow_ended(&rig.in)) {
        got += (uint64_t)get(rig.qemu, got, SIZE_MAX);
        assert_true(got <= sent);
        assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    }
    while (got < sent)
        got += (uint64_t)get(rig.qemu, got, SIZE_MAX);
    assert_int_equal(get(rig.qemu, got, SIZE_MAX), -1);
    rig_clear(&rig);
}

/* A flow that is never resumed needs no acknowledgement to go on, but still one to end. */
TEST(test_nothing_is_kept)
{
    struct rig rig;
    uint64_t sent = 0, got = 0;

    rig_init(&rig);
    rig.out.forgetful = true;
    while (sent < 3 * (uint64_t)WINDOW) { /* no acknowledgement holds it back */
        sent += put(rig.qemu, sent, 100000);
        assert_int_equal(pump(&rig.out, 0), FLOW_OK);
        assert_int_equal(rig.out.ring.begin, rig.out.ring.cursor);
        got += (uint64_t)get(rig.peer, got, SIZE_MAX);
    }
    assert_int_equal(shutdown(rig.qemu, SHUT_WR), 0);
    while (got < sent) {
        assert_int_equal(pump(&rig.out, 0), FLOW_OK);
        got += (uint64_t)get(rig.peer, got, SIZE_MAX);
    }
    assert_int_equal(pump(&rig.out, 0), FLOW_OK);
    assert_false(flow_ended(&rig.out)); /* the ledger is the same */
    assert_null(flow_on_ack(&rig.out, sent - 1));
    assert_string_equal(flow_on_ack(&rig.out, sent - 2), "an ACK of less than was acknowledged before");
    assert_string_equal(flow_on_ack(&rig.out, sent + 1), "an ACK of more than was sent");
    assert_false(flow_ended(&rig.out));
    assert_null(flow_on_ack(&rig.out, sent));
    assert_true(flow_ended(&rig.out));
    rig_clear(&rig);
}

/* One end is not there yet: what can be is done, and nothing is waited for. */
TEST(test_missing_ends)
{
    struct rig rig;

    rig_init(&rig);
    rig.out.to = NULL;
    put(rig.qemu, 0, 1000);
    assert_int_equal(pump(&rig.out, 0), FLOW_OK);
    assert_int_equal(rig.out.ring.end, 1000);
    assert_false(flow_wants_output(&rig.out));
    rig.out.to = rig.to_peer;
    assert_true(flow_wants_output(&rig.out));
    assert_int_equal(pump(&rig.out, 0), FLOW_OK);
    assert_int_equal(get(rig.peer, 0, SIZE_MAX), 1000);

    rig.in.from = NULL;
    assert_false(flow_wants_input(&rig.in));
    assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    rig.in.from = rig.to_peer;
    rig.in.to = NULL;
    put(rig.peer, 0, 1000);
    assert_null(flow_on_fin(&rig.in, 1000, 1));
    assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    assert_false(flow_ended(&rig.in));
    rig.in.to = rig.to_qemu;
    assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    assert_int_equal(get(rig.qemu, 0, SIZE_MAX), 1000);
    assert_true(flow_ended(&rig.in));
    rig_clear(&rig);
}

TEST(test_paced)
{
    struct pacer pacer = PACER_INIT;
    struct rig rig;
    uint64_t now = 1000000, got = 0;

    rig_init(&rig);
    pacer_set(&pacer, 100000, now);
    rig.out.pacer = &pacer;
    put(rig.qemu, 0, 100000);
    assert_int_equal(pump(&rig.out, now), FLOW_OK);
    assert_int_equal(rig.out.ring.end, 0);
    assert_false(flow_wants_input(&rig.out)); /* a full socket would be polled for ever */
    for (uint64_t end = now + 500000; now < end; now += 10000) {
        assert_int_equal(pump(&rig.out, now), FLOW_OK);
        got += (uint64_t)get(rig.peer, got, SIZE_MAX);
    }
    assert_between(got, 47500, 52500);
    pacer_set(&pacer, 0, now);
    assert_true(flow_wants_input(&rig.out));
    assert_int_equal(pump(&rig.out, now), FLOW_OK);
    got += (uint64_t)get(rig.peer, got, SIZE_MAX);
    assert_int_equal(got, 100000);
    rig_clear(&rig);
}

/* One pump ends, though the other end always has more: others have their turn. */
TEST(test_budget)
{
    struct rig rig;
    uint64_t sent = 0, got = 0;

    rig_init(&rig);
    for (int i = 0; i < 100; i++) {
        uint64_t before = rig.out.ring.end;

        sent += put(rig.qemu, sent, SIZE_MAX);
        assert_int_equal(pump(&rig.out, 0), FLOW_OK);
        assert_true(rig.out.ring.end - before <= FLOW_BUDGET);
        got += (uint64_t)get(rig.peer, got, SIZE_MAX);
        assert_null(flow_on_ack(&rig.out, rig.out.ring.cursor));
    }
    rig_clear(&rig);
}

/* Sends until all of the window is on its way; returns what was sent. */
static uint64_t fill_window(struct rig *rig, uint64_t sent, uint64_t got)
{
    while (ring_room(&rig->out.ring) > 0 || ring_unsent(&rig->out.ring) > 0) {
        sent += put(rig->qemu, sent, SIZE_MAX);
        assert_int_equal(pump(&rig->out, 0), FLOW_OK);
        got += (uint64_t)get(rig->peer, got, SIZE_MAX);
    }
    return sent;
}

/* As over a link on which each acknowledgement takes as long as the shortest did. */
static void is_bound_by_distance(struct flow *flow)
{
    flow->window.looks = WINDOW_LOOKS;
    flow->window.shortest = 3600 * (uint64_t)1000000;
    flow->window.sent_at -= 10000;
}

TEST(test_window_grows_and_gives_back)
{
    struct rig rig;

    rig_init(&rig);
    rig.pool.growth = WINDOW + WINDOW / 2;
    fill_window(&rig, 0, 0);
    is_bound_by_distance(&rig.out);
    assert_null(flow_on_ack(&rig.out, rig.out.window.mark));
    assert_int_equal(rig.out.ring.capacity, 2 * WINDOW);
    assert_int_equal(rig.pool.growth, WINDOW / 2);
    flow_clear(&rig.out);
    assert_int_equal(rig.pool.growth, WINDOW + WINDOW / 2); /* for the channels that are left */
    rig_clear(&rig);
}

TEST(test_window_grows_no_more_than_it_may)
{
    static const size_t growths[] = {0, 1000};

    for (size_t i = 0; i < ELEMENTS(growths); i++) {
        struct rig rig;

        rig_init(&rig);
        rig.pool.growth = growths[i];
        fill_window(&rig, 0, 0);
        is_bound_by_distance(&rig.out);
        assert_null(flow_on_ack(&rig.out, rig.out.window.mark));
        assert_int_equal(rig.out.ring.capacity, WINDOW + growths[i]);
        rig_clear(&rig);
    }
}

TEST(test_window_stays_where_nothing_is_kept)
{
    struct rig rig;

    rig_init(&rig);
    rig.pool.growth = WINDOW;
    rig.out.forgetful = true;
    assert_int_equal(put(rig.qemu, 0, 1000), 1000);
    assert_int_equal(pump(&rig.out, 0), FLOW_OK);
    assert_false(rig.out.window.waits);
    assert_null(flow_on_ack(&rig.out, 1000));
    assert_int_equal(rig.out.ring.capacity, WINDOW);
    rig_clear(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_out),
        CASE(test_in),
        CASE(what_is_expendable_breaks_off_as_an_end),
        CASE(what_was_dropped_is_followed_by_no_end),
        CASE(test_fin_before_its_data),
        CASE(test_fin_of_nothing),
        CASE(test_nothing_beyond_fin),
        CASE(test_half_close),
        CASE(test_data_and_eof_at_once),
        CASE(test_back_pressure_out),
        CASE(test_back_pressure_in),
        CASE(test_nothing_is_kept),
        CASE(test_missing_ends),
        CASE(test_paced),
        CASE(test_budget),
        CASE(test_window_grows_and_gives_back),
        CASE(test_window_grows_no_more_than_it_may),
        CASE(test_window_stays_where_nothing_is_kept),
    };

    return cmocka_run_group_tests_name("flow", tests, NULL, NULL);
}
