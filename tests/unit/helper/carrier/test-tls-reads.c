/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "carrier-rig.h"

#include <dlfcn.h>

#include "helper/carrier/raw.h"
#include "helper/carrier/tls.h"
#include "helper/relay/flow.h"

/* TLS out of reads that end anywhere: nothing is left behind that no poll sees, and a turn has a bound. */

static size_t read_most = SIZE_MAX;

/* In place of the C library's: a read gives no more than that. */
ssize_t recvmsg(int fd, struct msghdr *mh, int flags)
{
    ssize_t (*real)(int, struct msghdr *, int);
    struct iovec iov = mh->msg_iov[0];
    struct msghdr one = *mh;

    *(void **)&real = dlsym(RTLD_NEXT, "recvmsg");
    if (iov.iov_len > read_most)
        iov.iov_len = read_most;
    one.msg_iov = &iov;
    one.msg_iovlen = 1;
    return real(fd, &one, flags);
}

static void tls_pair(struct carrier **a, struct carrier **b)
{
    int pair[2], r[2];

    test_pair(SOCK_STREAM, 8 << 20, pair);
    assert_int_equal(carrier_tls_new(pair[0], true, &preamble, key, 256 << 10, aeads_chosen(), a), 0);
    assert_int_equal(carrier_tls_new(pair[1], false, &preamble, key, 256 << 10, aeads_chosen(), b), 0);
    shake(a, b, &r[0], &r[1]);
    assert_int_equal(r[0] | r[1], 0);
}

static void send_tls(struct carrier *a, struct ring *out, uint64_t offset, size_t size)
{
    ring_put(out, offset, size);
    while (ring_unsent(out) > 0)
        assert_true(carrier_send(a, out) > 0);
    ring_release(out, out->cursor);
}

TEST(test_record_in_pieces)
{
    for (size_t pieces = 1; pieces <= 12; pieces++) {
        struct ring_pool pool = {0};
        struct ring out, in;
        struct carrier *a, *b;
        ssize_t r = -EAGAIN;

        tls_pair(&a, &b);
        assert_int_equal(ring_init(&out, &pool, 1 << 20), 0);
        assert_int_equal(ring_init(&in, &pool, 1 << 20), 0);
        assert_int_equal(carrier_recv(b, &in, 1000), -EAGAIN);
        send_tls(a, &out, 0, 16384);
        read_most = (16384 + 64) / pieces;
        /* "Again" is true only while the poll says that there is more. */
        for (int i = 0; i < 12 && r == -EAGAIN; i++) {
            uint8_t byte;

            assert_int_equal(recv(b->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT), 1);
            r = carrier_recv(b, &in, 65536);
        }
        assert_int_equal(r, 16384);
        read_most = SIZE_MAX;
        ring_clear(&out);
        ring_clear(&in);
        carrier_free(a);
        carrier_free(b);
    }
}

TEST(test_turn)
{
    static const size_t most[] = {SIZE_MAX, 73728, 65536, 65160, 50000, 20000, 14480};

    for (size_t i = 0; i < ELEMENTS(most); i++) {
        struct ring_pool pool = {0};
        struct ring out;
        struct flow in;
        struct carrier *a, *b, *qemu;
        uint64_t sent = 0, was = 0;
        int pair[2];

        tls_pair(&a, &b);
        test_pair(SOCK_STREAM, 8 << 20, pair);
        assert_int_equal(carrier_raw_new(pair[1], &qemu), 0);
        assert_int_equal(ring_init(&out, &pool, 1 << 20), 0);
        assert_int_equal(flow_init(&in, FLOW_IN, &pool, FLOW_BUFFER), 0);
        in.from = b;
        in.to = qemu;
        read_most = most[i];
        for (int turn = 0; turn < (test_in_valgrind() ? 5 : 30); turn++) {
            while (sent < was + 1000000) {
                send_tls(a, &out, sent, 100000);
                sent += 100000;
            }
            b->readable = true;
            assert_int_equal(flow_pump(&in, 0, FLOW_TURN), FLOW_OK);
            assert_between(in.ring.end - was, 1, 3 * FLOW_TURN);
            was = in.ring.end;
            for (uint8_t buf[65536]; recv(pair[0], buf, sizeof(buf), MSG_DONTWAIT) > 0;)
                ;
        }
        read_most = SIZE_MAX;
        ring_clear(&out);
        flow_clear(&in);
        ring_pool_clear(&pool);
        carrier_free(a);
        carrier_free(b);
        carrier_free(qemu);
        close(pair[0]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {CASE(test_record_in_pieces), CASE(test_turn)};

    return cmocka_run_group_tests_name("carrier-tls-reads", tests, NULL, NULL);
}
