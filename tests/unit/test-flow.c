/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "helper/flow.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>

/*
 * One helper's channel between two sockets of the test: `qemu` is QEMU's end, `peer` the other helper's.
 */
enum { WINDOW = 4 * 1024 * 1024 };

struct rig {
    int qemu, peer;
    struct carrier *to_qemu, *to_peer;
    struct ring_pool pool;
    struct flow out, in;
};

static void rig_init_on(struct rig *rig, const int qemu[static 2], const int peer[static 2])
{
    *rig = (struct rig){.qemu = qemu[0], .peer = peer[0], .pool = {.max_free = 4}};
    assert_int_equal(carrier_plain_new(qemu[1], false, NULL, NULL, &rig->to_qemu), 0);
    assert_int_equal(carrier_plain_new(peer[1], false, NULL, NULL, &rig->to_peer), 0);
    assert_int_equal(flow_init(&rig->out, FLOW_OUT, &rig->pool, WINDOW), 0);
    assert_int_equal(flow_init(&rig->in, FLOW_IN, &rig->pool, FLOW_BUFFER), 0);
    rig->out.from = rig->in.to = rig->to_qemu;
    rig->out.to = rig->in.from = rig->to_peer;
}

static void rig_init(struct rig *rig)
{
    int qemu[2], peer[2];

    test_pair(SOCK_STREAM, 0, qemu);
    test_pair(SOCK_STREAM, 0, peer);
    rig_init_on(rig, qemu, peer);
}

static void close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static void rig_clear(struct rig *rig)
{
    flow_clear(&rig->out);
    flow_clear(&rig->in);
    carrier_free(rig->to_qemu);
    carrier_free(rig->to_peer);
    ring_pool_clear(&rig->pool);
    close_end(&rig->qemu);
    close_end(&rig->peer);
}

/* As the loop of events does it: first what the poll says of the connection that is read from. */
static enum flow_verdict pump(struct flow *flow, uint64_t now)
{
    struct pollfd p = {.events = POLLIN};

    if (flow->from) {
        p.fd = flow->from->fd;
        if (poll(&p, 1, 0) > 0)
            flow->from->readable = true;
    }
    return flow_pump(flow, now);
}

/* Writes what goes, up to size bytes of the stream from offset on. */
static size_t put(int fd, uint64_t offset, size_t size)
{
    uint8_t buf[65536];
    size_t done = 0;

    while (done < size) {
        size_t n = size - done < sizeof(buf) ? size - done : sizeof(buf);
        ssize_t r;

        test_fill(buf, n, offset + done);
        r = send(fd, buf, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (r < 0) {
            assert_int_equal(errno, EAGAIN);
            break;
        }
        done += (size_t)r;
    }
    return done;
}

/* Reads what is there, up to size bytes, and holds it against the stream from offset on; -1 at EOF, if
 * nothing came. */
static ssize_t get(int fd, uint64_t offset, size_t size)
{
    uint8_t buf[65536];
    size_t done = 0;

    while (done < size) {
        size_t n = size - done < sizeof(buf) ? size - done : sizeof(buf);
        ssize_t r = recv(fd, buf, n, MSG_DONTWAIT);

        if (r == 0)
            return done > 0 ? (ssize_t)done : -1;
        if (r < 0) {
            assert_int_equal(errno, EAGAIN);
            break;
        }
        test_expect(buf, (size_t)r, offset + done);
        done += (size_t)r;
    }
    return (ssize_t)done;
}

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
    assert_null(flow_on_fin(&rig.in, 5000)); /* after its data */
    assert_false(flow_ended(&rig.in));
    assert_int_equal(pump(&rig.in, 0), FLOW_OK);
    assert_true(flow_ended(&rig.in));
    assert_int_equal(get(rig.qemu, 5000, SIZE_MAX), -1);
    assert_false(flow_wants_input(&rig.in));
    rig_clear(&rig);
}

TEST(test_fin_before_its_data)
{
    struct rig rig;

    rig_init(&rig);
    assert_null(flow_on_fin(&rig.in, 5000));
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
    assert_null(flow_on_fin(&rig.in, 0));
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
    assert_null(flow_on_fin(&rig.in, 1000));
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
            assert_null(flow_on_fin(&rig.in, 200));
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
            assert_null(flow_on_fin(&rig.in, 500));
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
    assert_null(flow_on_fin(&rig.in, sent));
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
    assert_string_equal(flow_on_fin(&rig.in, 999), "a FIN at less than was sent");
    assert_string_equal(flow_on_fin(&rig.in, 0), "a FIN at less than was sent");
    assert_false(rig.in.ending);
    assert_null(flow_on_fin(&rig.in, UINT64_MAX)); /* it may mean it; then it never ends */
    assert_string_equal(flow_on_fin(&rig.in, 1000), "a second FIN for a channel");
    assert_string_equal(flow_on_fin(&rig.in, UINT64_MAX), "a second FIN for a channel");
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
            assert_null(flow_on_fin(&rig.in, 1001));
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
    assert_null(flow_on_fin(&rig.in, 1000));
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

static void tcp_pair(int ret[static 2])
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(in);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(listener, (const struct sockaddr *)&in, size), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&in, &size), 0);
    ret[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(ret[0], (const struct sockaddr *)&in, size), 0);
    ret[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    assert_true(ret[1] >= 0);
    close(listener);
}

/* A reset is no end: QEMU that died must not look like one that is done. */
TEST(test_reset_is_no_eof)
{
    for (int which = 0; which < 2; which++) {
        const struct linger hard = {.l_onoff = 1, .l_linger = 0};
        int qemu[2], peer[2], *fd;
        struct rig rig;

        tcp_pair(qemu);
        tcp_pair(peer);
        rig_init_on(&rig, qemu, peer);
        fd = which == 0 ? &rig.qemu : &rig.peer;
        assert_int_equal(setsockopt(*fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)), 0);
        close_end(fd);
        assert_int_equal(pump(which == 0 ? &rig.out : &rig.in, 0), FLOW_FROM_LOST);
        assert_false(rig.out.ending);
        rig_clear(&rig);
    }
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
    assert_null(flow_on_fin(&rig.in, 1000));
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
    struct pacer pacer;
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
    assert_in_range(got, 47500, 52500);
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
        assert_true(rig.out.ring.end - before <= FLOW_BUDGET + CARRIER_BATCH);
        got += (uint64_t)get(rig.peer, got, SIZE_MAX);
        assert_null(flow_on_ack(&rig.out, rig.out.ring.cursor));
    }
    rig_clear(&rig);
}

/* ---- In to QEMU through a pipe ---- */

static void rig_use_pipe(struct rig *rig)
{
    int ends[2], fd, size;
    char path[64];

    /* Both ends in one descriptor, as the broker hands it over. */
    assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", ends[0]);
    fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    assert_true(fd >= 0);
    size = fcntl(fd, F_GETPIPE_SZ);
    assert_true(size > 0);
    flow_use_pipe(&rig->in, fd, (size_t)size);
    close(ends[0]);
    close(ends[1]);
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
        got += (uint64_t)get(rig.qemu, got, sent - got);
    }
    assert_true(flow_ended(&rig.in));
    got += (uint64_t)get(rig.qemu, got, sent - got);
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
        got += (uint64_t)get(rig.qemu, got, sent - got);
        assert_int_equal(pump(&rig.in, 0), FLOW_OK);
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

/* Who else holds a socket may flip O_NONBLOCK at any time (THREATS.md, 2): it must not stop the helper. */
static void expect_no_block(bool use_pipe, bool tcp)
{
    struct rig rig;
    int qemu[2], peer[2], status;
    pid_t pid;

    if (tcp) {
        tcp_pair(qemu);
        tcp_pair(peer);
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
        ok = ok && flow_pump(&rig.in, 0) == FLOW_OK && flow_pump(&rig.out, 0) == FLOW_OK;
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
        CASE(test_out),
        CASE(test_in),
        CASE(test_fin_before_its_data),
        CASE(test_fin_of_nothing),
        CASE(test_nothing_beyond_fin),
        CASE(test_half_close),
        CASE(test_data_and_eof_at_once),
        CASE(test_back_pressure_out),
        CASE(test_back_pressure_in),
        CASE(test_ack_lies),
        CASE(test_nothing_is_kept),
        CASE(test_ack_of_what_was_not_sent),
        CASE(test_fin_lies),
        CASE(test_eof_of_the_peer),
        CASE(test_eof_of_the_peer_after_all),
        CASE(test_qemu_is_gone),
        CASE(test_peer_is_gone),
        CASE(test_reset_is_no_eof),
        CASE(test_missing_ends),
        CASE(test_paced),
        CASE(test_budget),
        CASE(test_pipe),
        CASE(test_pipe_of_a_busy_stream),
        CASE(test_pipe_of_small_pieces),
        CASE(test_pipe_losses),
        CASE(test_nonblock_flipped),
        CASE(test_nonblock_flipped_with_pipe),
        CASE(test_nonblock_flipped_with_pipe_and_tcp),
    };

    return cmocka_run_group_tests_name("flow", tests, NULL, NULL);
}
