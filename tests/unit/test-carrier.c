/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "common/error.h"
#include "helper/carrier.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <inttypes.h>
#include <poll.h>
#include <sys/epoll.h>

enum kind {
    PLAIN,
    TLS,
};

static const struct preamble preamble = {PEER_CONTROL, 0x0123456789abcdef};
static const uint8_t key[KEY_SIZE] = "a key of thirty-two bytes ......";
static const uint8_t other_key[KEY_SIZE] = "another key of thirty-two bytes.";

static struct carrier *make(enum kind kind, int fd, bool connecting, const struct preamble *p,
                            const uint8_t *k)
{
    struct carrier *carrier = NULL;
    int r = kind == PLAIN ? carrier_plain_new(fd, connecting, p, k, &carrier)
                          : carrier_tls_new(fd, connecting, p, k, CARRIER_TLS_BUFFER_MIN, &carrier);

    assert_int_equal(r, 0);
    return carrier;
}

/* Both ends, each driven when its socket is ready, until each has come to something; closes what failed. */
static void shake(struct carrier **a, struct carrier **b, int *ret_a, int *ret_b)
{
    struct carrier **ends[] = {a, b};
    int results[] = {-EAGAIN, -EAGAIN};

    for (int rounds = 0; rounds < 2000 && (results[0] == -EAGAIN || results[1] == -EAGAIN); rounds++) {
        for (int i = 0; i < 2; i++) {
            if (results[i] != -EAGAIN)
                continue;
            results[i] = (*ends[i])->ops->handshake(*ends[i]);
            if (results[i] < 0 && results[i] != -EAGAIN)
                *ends[i] = carrier_free(*ends[i]);
        }
        for (int i = 0; i < 2; i++)
            if (*ends[i] && results[i] == 0)
                assert_true((*ends[i])->ops->flush(*ends[i]) <= 0);
    }
    *ret_a = results[0];
    *ret_b = results[1];
}

/* A pair that has shaken hands. */
static void make_pair(enum kind kind, int buffer, struct carrier **ret_a, struct carrier **ret_b)
{
    int pair[2], a, b;

    test_pair(SOCK_STREAM, buffer, pair);
    *ret_a = make(kind, pair[0], true, &preamble, key);
    *ret_b = make(kind, pair[1], false, &preamble, key);
    shake(ret_a, ret_b, &a, &b);
    assert_int_equal(a, 0);
    assert_int_equal(b, 0);
}

static void ring_put(struct ring *ring, uint64_t offset, size_t size)
{
    uint8_t *data = malloc(size);

    test_fill(data, size, offset);
    assert_int_equal(ring_append(ring, data, size), 0);
    free(data);
}

/* One direction of a transfer. */
struct way {
    struct carrier *from, *to;
    struct ring out, in;
    uint64_t put, got, size;
};

static void way_init(struct way *way, struct carrier *from, struct carrier *to, struct ring_pool *pool,
                     uint64_t size, size_t capacity)
{
    *way = (struct way){.from = from, .to = to, .size = size};
    assert_int_equal(ring_init(&way->out, pool, capacity), 0);
    assert_int_equal(ring_init(&way->in, pool, capacity), 0);
}

static void way_clear(struct way *way)
{
    ring_clear(&way->out);
    ring_clear(&way->in);
}

/* Moves what goes, in pieces of any size. */
static void way_move(struct way *way, uint32_t step)
{
    size_t n = 1 + test_random() % step;
    ssize_t r;

    if (n > ring_room(&way->out))
        n = ring_room(&way->out);
    if (n > way->size - way->put)
        n = (size_t)(way->size - way->put);
    if (n > 0)
        ring_put(&way->out, way->put, n);
    way->put += n;
    r = ring_unsent(&way->out) > 0 ? carrier_send(way->from, &way->out) : way->from->ops->flush(way->from);
    assert_true(r >= 0 || r == -EAGAIN);
    ring_release(&way->out, way->out.cursor);

    r = carrier_recv(way->to, &way->in, 1 + test_random() % step);
    assert_true(r > 0 || r == -EAGAIN);
    while (ring_unsent(&way->in) > 0) {
        struct iovec iov[RING_IOV_MAX];

        assert_true(ring_peek(&way->in, 1 + test_random() % step, iov) >= 1);
        test_expect(iov[0].iov_base, iov[0].iov_len, way->got);
        way->got += iov[0].iov_len;
        ring_advance(&way->in, iov[0].iov_len);
    }
    ring_release(&way->in, way->in.cursor);
}

/* Both directions at once, through socket buffers of that size. */
static void transfer(enum kind kind, int buffer, uint32_t step, uint64_t size)
{
    struct ring_pool pool = {.max_free = 8};
    struct carrier *a, *b;
    struct way there, back;

    make_pair(kind, buffer, &a, &b);
    way_init(&there, a, b, &pool, size, 300000);
    way_init(&back, b, a, &pool, size / 2 + 7, 70001);
    while (there.got < there.size || back.got < back.size) {
        way_move(&there, step);
        way_move(&back, step);
    }
    assert_false(a->ops->holds_output(a));
    assert_false(b->ops->holds_output(b));
    assert_false(a->ops->holds_input(a));
    assert_false(b->ops->holds_input(b));
    way_clear(&there);
    way_clear(&back);
    carrier_free(a);
    carrier_free(b);
    ring_pool_clear(&pool);
}

TEST(test_transfer_plain)
{
    transfer(PLAIN, 0, 200000, 20000000);
    transfer(PLAIN, 4096, 9999, 1000000);
    transfer(PLAIN, 4096, 3, 5000);
}

TEST(test_transfer_tls)
{
    transfer(TLS, 0, 200000, 20000000);
    transfer(TLS, 4096, 9999, 1000000);
    transfer(TLS, 4096, 3, 5000);
}

TEST(test_free_of_nothing)
{
    int pair[2];

    assert_null(carrier_free(NULL));
    for (int kind = PLAIN; kind <= TLS; kind++) {
        test_pair(SOCK_STREAM, 0, pair);
        assert_null(carrier_free(make((enum kind)kind, pair[0], true, &preamble, key)));
        carrier_free(make((enum kind)kind, pair[1], false, &preamble, key));
    }
}

TEST(test_export_key)
{
    for (int kind = PLAIN; kind <= TLS; kind++) {
        uint8_t keys[3][KEY_SIZE];

        for (int i = 0; i < 3; i++) {
            struct carrier *a, *b;
            uint8_t same[KEY_SIZE];

            make_pair((enum kind)kind, 0, &a, &b);
            assert_int_equal(a->ops->export_key(a, keys[i]), 0);
            assert_int_equal(b->ops->export_key(b, same), 0);
            assert_memory_equal(keys[i], same, KEY_SIZE);
            assert_memory_not_equal(keys[i], key, KEY_SIZE);
            for (int j = 0; j < i; j++)
                assert_memory_not_equal(keys[i], keys[j], KEY_SIZE);
            carrier_free(a);
            carrier_free(b);
        }
    }
}

/* The sides' results where they do not agree on something; who notices first says -EKEYREJECTED. */
static void expect_refused(enum kind kind, const struct preamble *b_preamble, const uint8_t *b_key)
{
    struct carrier *a, *b;
    int pair[2], r_a, r_b;

    test_pair(SOCK_STREAM, 0, pair);
    a = make(kind, pair[0], true, &preamble, key);
    b = make(kind, pair[1], false, b_preamble, b_key);
    shake(&a, &b, &r_a, &r_b);
    if (kind == TLS) {
        assert_int_equal(r_b, -EKEYREJECTED);
        assert_true(r_a == -EKEYREJECTED || r_a == -ECONNRESET);
    } else {
        /* The accepting side proves itself first, so it is the connecting one that refuses. */
        assert_int_equal(r_a, -EKEYREJECTED);
        assert_true(r_b == -EKEYREJECTED || r_b == -ECONNRESET);
    }
    assert_null(a);
    assert_null(b);
}

TEST(test_wrong_key)
{
    expect_refused(PLAIN, &preamble, other_key);
    expect_refused(TLS, &preamble, other_key);
}

TEST(test_wrong_id)
{
    const struct preamble other = {preamble.kind, preamble.id + 1};

    expect_refused(PLAIN, &other, key);
    expect_refused(TLS, &other, key);
}

/* Neither answers a side of the other security, and neither hangs on for ever when that goes away. */
TEST(test_other_security)
{
    for (int kind = PLAIN; kind <= TLS; kind++) {
        struct carrier *a, *b;
        int pair[2], r_a, r_b;

        test_pair(SOCK_STREAM, 0, pair);
        a = make((enum kind)kind, pair[0], true, &preamble, key);
        b = make(kind == PLAIN ? TLS : PLAIN, pair[1], false, &preamble, key);
        shake(&a, &b, &r_a, &r_b);
        assert_int_equal(r_b, -EKEYREJECTED);
        assert_true(r_a == -EKEYREJECTED || r_a == -ECONNRESET);
    }
}

/* What a raw socket says to a side that shakes hands, and what that comes to. */
static int answer_with(enum kind kind, bool connecting, const void *data, size_t size, uint32_t *ret_rejected)
{
    struct carrier *carrier;
    int pair[2], r;

    test_pair(SOCK_STREAM, 0, pair);
    carrier = make(kind, pair[0], connecting, &preamble, key);
    assert_int_equal(carrier->ops->handshake(carrier), -EAGAIN);
    assert_int_equal(send(pair[1], data, size, MSG_NOSIGNAL), (ssize_t)size);
    r = carrier->ops->handshake(carrier);
    *ret_rejected = carrier->rejected;
    carrier_free(carrier);
    close(pair[1]);
    return r;
}

TEST(test_rejection)
{
    for (int kind = PLAIN; kind <= TLS; kind++) {
        for (uint32_t error = 1; error < VF_ERROR_MAX_; error++) {
            uint8_t buf[REJECTION_SIZE];
            uint32_t rejected;

            rejection_encode(error, buf);
            assert_int_equal(answer_with((enum kind)kind, true, buf, sizeof(buf), &rejected), -ECONNREFUSED);
            assert_int_equal(rejected, error);
        }
    }
}

/* One that is cut, or names no error of ours: rejected, for whatever it is. */
TEST(test_bad_rejection)
{
    for (int kind = PLAIN; kind <= TLS; kind++) {
        uint8_t buf[REJECTION_SIZE];
        uint32_t rejected;

        rejection_encode(VF_ERROR_MAX_, buf);
        assert_int_equal(answer_with((enum kind)kind, true, buf, sizeof(buf), &rejected), -ECONNREFUSED);
        assert_int_equal(rejected, VF_ERROR_PEER_REJECTED);
        rejection_encode(VF_ERROR_TICKET_USED, buf);
        assert_int_equal(answer_with((enum kind)kind, true, buf, 7, &rejected), -ECONNREFUSED);
        assert_int_equal(rejected, VF_ERROR_PEER_REJECTED);
    }
}

/* Nobody rejects a side that accepts. */
TEST(test_rejection_to_the_accepting_side)
{
    for (int kind = PLAIN; kind <= TLS; kind++) {
        uint8_t buf[96] = {0};
        uint32_t rejected;
        int r;

        rejection_encode(VF_ERROR_TICKET_USED, buf);
        r = answer_with((enum kind)kind, false, buf, PROOF_HELLO, &rejected);
        assert_int_equal(r, -EKEYREJECTED);
        assert_int_equal(rejected, 0);
    }
}

TEST(test_garbage)
{
    for (int round = 0; round < 200; round++) {
        uint8_t buf[300];
        uint32_t rejected;
        int r;

        for (size_t i = 0; i < sizeof(buf); i++)
            buf[i] = (uint8_t)test_random();
        if (round % 2)
            memcpy(buf, "\x16\x03\x03\x00\x80", 5); /* like a record of TLS */
        r = answer_with(round % 4 < 2 ? PLAIN : TLS, round % 3 == 0, buf, sizeof(buf), &rejected);
        assert_true(r == -EKEYREJECTED || r == -EAGAIN || (r == -ECONNREFUSED && buf[0] == 0));
    }
}

TEST(test_closed_in_the_handshake)
{
    for (int kind = PLAIN; kind <= TLS; kind++) {
        for (int connecting = 0; connecting < 2; connecting++) {
            struct carrier *carrier;
            int pair[2];

            test_pair(SOCK_STREAM, 0, pair);
            carrier = make((enum kind)kind, pair[0], connecting, &preamble, key);
            assert_int_equal(carrier->ops->handshake(carrier), -EAGAIN);
            shutdown(pair[1], SHUT_WR);
            assert_int_equal(carrier->ops->handshake(carrier), -ECONNRESET);
            carrier_free(carrier);
            close(pair[1]);
        }
    }
}

/* The connecting side's bytes of `plain` up to its proof, made by hand, with the stream right behind them. */
TEST(test_plain_reads_no_further)
{
    struct ring_pool pool = {0};
    struct ring ring;
    struct carrier *b;
    struct proof proof;
    uint8_t buf[PROOF_MAX + 5];
    int pair[2];

    test_pair(SOCK_STREAM, 0, pair);
    b = make(PLAIN, pair[1], false, &preamble, key);
    assert_int_equal(proof_init(&proof, true, &preamble, key), 0);
    assert_int_equal(send(pair[0], proof.out, proof.n_out, 0), PROOF_HELLO);
    assert_int_equal(b->ops->handshake(b), -EAGAIN);
    assert_int_equal(recv(pair[0], buf, sizeof(buf), 0), PROOF_MAX);
    assert_int_equal(proof_feed(&proof, buf, PROOF_MAX), VERDICT_OK);
    memcpy(buf, proof.out, PROOF_MAC);
    test_fill(buf + PROOF_MAC, 5, 0);
    assert_int_equal(send(pair[0], buf, PROOF_MAC + 5, 0), PROOF_MAC + 5);
    assert_int_equal(b->ops->handshake(b), 0);
    assert_int_equal(ring_init(&ring, &pool, 100), 0);
    assert_int_equal(carrier_recv(b, &ring, 100), 5);
    assert_int_equal(ring_copy(&ring, buf, sizeof(buf)), 5);
    test_expect(buf, 5, 0);
    ring_clear(&ring);
    carrier_free(b);
    close(pair[0]);
}

/* The same for the accepting side's first bytes, which may come with its proof. */
TEST(test_plain_reads_no_further_when_connecting)
{
    struct ring_pool pool = {0};
    struct ring ring;
    struct carrier *a;
    struct proof proof;
    uint8_t buf[PROOF_MAX + 5];
    int pair[2];

    test_pair(SOCK_STREAM, 0, pair);
    a = make(PLAIN, pair[1], true, &preamble, key);
    assert_int_equal(a->ops->handshake(a), -EAGAIN);
    assert_int_equal(recv(pair[0], buf, sizeof(buf), 0), PROOF_HELLO);
    assert_int_equal(proof_init(&proof, false, &preamble, key), 0);
    assert_int_equal(proof_feed(&proof, buf, PROOF_HELLO), VERDICT_MORE);
    memcpy(buf, proof.out, PROOF_MAX);
    test_fill(buf + PROOF_MAX, 5, 0);
    assert_int_equal(send(pair[0], buf, sizeof(buf), 0), sizeof(buf));
    assert_int_equal(a->ops->handshake(a), 0);
    assert_int_equal(ring_init(&ring, &pool, 100), 0);
    assert_int_equal(carrier_recv(a, &ring, 100), 5);
    ring_clear(&ring);
    carrier_free(a);
    close(pair[0]);
}

/* Somebody in the middle of two TLS ends, who sees to it how much gets through, and how. */
struct middle {
    int a, b; /* his ends */
    struct carrier *connecting, *accepting;
};

/* Forwards what is there, up to max bytes each way; flips a bit of byte flip_at of what goes to b (or never).
 */
static size_t forward(struct middle *m, size_t max, size_t flip_at)
{
    size_t moved = 0;

    for (int way = 0; way < 2; way++) {
        uint8_t buf[100000];
        ssize_t n = recv(way ? m->b : m->a, buf, max < sizeof(buf) ? max : sizeof(buf), MSG_DONTWAIT);

        if (n <= 0)
            continue;
        if (way == 0 && flip_at < (size_t)n)
            buf[flip_at] ^= 1;
        assert_int_equal(send(way ? m->a : m->b, buf, (size_t)n, MSG_NOSIGNAL), n);
        moved += (size_t)n;
    }
    return moved;
}

/* With max bytes forwarded at a time. */
static void middle_init(struct middle *m, size_t max)
{
    int one[2], two[2], r_a = -EAGAIN, r_b = -EAGAIN;

    test_pair(SOCK_STREAM, 0, one);
    test_pair(SOCK_STREAM, 0, two);
    *m = (struct middle){.a = one[1], .b = two[1]};
    m->connecting = make(TLS, one[0], true, &preamble, key);
    m->accepting = make(TLS, two[0], false, &preamble, key);
    for (size_t moved = 1; moved > 0 || r_a == -EAGAIN || r_b == -EAGAIN; moved = forward(m, max, SIZE_MAX)) {
        if (r_a == -EAGAIN)
            r_a = m->connecting->ops->handshake(m->connecting);
        if (r_b == -EAGAIN)
            r_b = m->accepting->ops->handshake(m->accepting);
        assert_true((r_a == 0 || r_a == -EAGAIN) && (r_b == 0 || r_b == -EAGAIN));
    }
}

static void middle_clear(struct middle *m)
{
    carrier_free(m->connecting);
    carrier_free(m->accepting);
    close(m->a);
    if (m->b >= 0)
        close(m->b);
}

TEST(test_tls_byte_by_byte)
{
    struct ring_pool pool = {0};
    struct ring out, in;
    struct middle m;
    uint8_t buf[600];
    ssize_t r;

    middle_init(&m, 1);
    assert_int_equal(ring_init(&out, &pool, 1000), 0);
    assert_int_equal(ring_init(&in, &pool, 1000), 0);
    ring_put(&out, 0, 500);
    assert_int_equal(carrier_send(m.connecting, &out), 500);
    while (forward(&m, 1, SIZE_MAX) > 0) {
        r = carrier_recv(m.accepting, &in, 1000);
        assert_true(r == -EAGAIN || r == 500); /* no part of a record that is not proved */
    }
    assert_int_equal(ring_copy(&in, buf, sizeof(buf)), 500);
    test_expect(buf, 500, 0);
    ring_clear(&out);
    ring_clear(&in);
    middle_clear(&m);
}

/* Cut in a record: what was whole before has come, then EOF, and nothing of the rest. */
TEST(test_tls_cut)
{
    static const size_t cuts[] = {1, 4, 5, 6, 100, 521, 522, 523, 1000};

    for (size_t i = 0; i < ELEMENTS(cuts); i++) {
        struct ring_pool pool = {0};
        struct ring out, in;
        struct middle m;
        ssize_t r, got = 0;

        middle_init(&m, SIZE_MAX);
        assert_int_equal(ring_init(&out, &pool, 2000), 0);
        assert_int_equal(ring_init(&in, &pool, 2000), 0);
        ring_put(&out, 0, 500);
        assert_int_equal(carrier_send(m.connecting, &out), 500); /* 522 bytes of TLS */
        ring_put(&out, 500, 500);
        assert_int_equal(carrier_send(m.connecting, &out), 500);
        assert_int_equal(forward(&m, cuts[i], SIZE_MAX), cuts[i]);
        close(m.b);
        m.b = -1;
        while ((r = carrier_recv(m.accepting, &in, 2000)) > 0)
            got += r;
        assert_int_equal(r, 0);
        assert_int_equal(got, cuts[i] >= 522 ? 500 : 0);
        ring_clear(&out);
        ring_clear(&in);
        middle_clear(&m);
    }
}

/* A flipped bit anywhere in a record is noticed before a byte of it is given on. */
TEST(test_tls_flipped)
{
    for (size_t at = 0; at < 122; at += 1 + at / 8) {
        struct ring_pool pool = {0};
        struct ring out, in;
        struct middle m;
        ssize_t r;

        middle_init(&m, SIZE_MAX);
        assert_int_equal(ring_init(&out, &pool, 2000), 0);
        assert_int_equal(ring_init(&in, &pool, 2000), 0);
        ring_put(&out, 0, 100);
        assert_int_equal(carrier_send(m.connecting, &out), 100);
        assert_int_equal(forward(&m, SIZE_MAX, at), 122);
        r = carrier_recv(m.accepting, &in, 2000);
        if (r == -EAGAIN) { /* a longer length waits for the rest */
            assert_in_range(at, 3, 4);
            close(m.b);
            m.b = -1;
            r = carrier_recv(m.accepting, &in, 2000);
        }
        /* GnuTLS does not look at the type and the version, which mean nothing in TLS 1.3. */
        if (at >= 3)
            assert_true(r == -EPROTO || r == 0);
        if (r > 0) {
            uint8_t buf[100];

            assert_int_equal(r, 100);
            assert_int_equal(ring_copy(&in, buf, sizeof(buf)), 100);
            test_expect(buf, 100, 0);
        }
        assert_int_equal(in.end, r > 0 ? 100 : 0);
        ring_clear(&out);
        ring_clear(&in);
        middle_clear(&m);
    }
}

/* A full ring takes no more; what the carrier holds meanwhile it says, and gives up later. */
TEST(test_tls_holds_input)
{
    struct ring_pool pool = {0};
    struct ring out, in;
    struct carrier *a, *b;
    uint64_t got = 0;

    make_pair(TLS, 0, &a, &b);
    assert_int_equal(ring_init(&out, &pool, 20000), 0);
    assert_int_equal(ring_init(&in, &pool, 1000), 0);
    ring_put(&out, 0, 20000);
    while (ring_unsent(&out) > 0)
        assert_true(carrier_send(a, &out) > 0);
    while (got < 20000) {
        uint8_t buf[1000];
        size_t n;
        ssize_t r = carrier_recv(b, &in, SIZE_MAX);

        assert_in_range(r, 1, 1000);
        n = ring_copy(&in, buf, sizeof(buf));
        test_expect(buf, n, got);
        got += n;
        if (got < 20000)
            assert_true(b->ops->holds_input(b));
        if (ring_room(&in) == 0)
            assert_int_equal(carrier_recv(b, &in, SIZE_MAX), -EAGAIN);
        ring_advance(&in, n);
        ring_release(&in, in.cursor);
    }
    assert_false(b->ops->holds_input(b));
    assert_int_equal(carrier_recv(b, &in, SIZE_MAX), -EAGAIN);
    ring_clear(&out);
    ring_clear(&in);
    carrier_free(a);
    carrier_free(b);
}

/* Nobody reads: it takes no more than its buffer, and says what it holds. */
TEST(test_tls_holds_output)
{
    struct ring_pool pool = {0};
    struct ring out, in;
    struct carrier *a, *b;
    size_t held = 0, got = 0;
    ssize_t r;

    make_pair(TLS, 4096, &a, &b);
    assert_int_equal(ring_init(&out, &pool, 1000000), 0);
    assert_int_equal(ring_init(&in, &pool, 1000000), 0);
    ring_put(&out, 0, 1000000);
    while ((r = carrier_send(a, &out)) > 0)
        held += (size_t)r;
    assert_int_equal(r, -EAGAIN);
    assert_true(a->ops->holds_output(a));
    assert_true(held < 200000);
    assert_int_equal(a->ops->flush(a), -EAGAIN);
    while (got < held) {
        r = carrier_recv(b, &in, SIZE_MAX);
        got += r > 0 ? (size_t)r : 0;
        r = a->ops->flush(a);
        assert_true(r == 0 || r == -EAGAIN);
    }
    assert_false(a->ops->holds_output(a));
    assert_int_equal(got, held);
    ring_clear(&out);
    ring_clear(&in);
    carrier_free(a);
    carrier_free(b);
}

TEST(test_eof_and_broken)
{
    for (int kind = PLAIN; kind <= TLS; kind++) {
        struct ring_pool pool = {0};
        struct ring ring;
        struct carrier *a, *b;
        ssize_t r = 1;

        make_pair((enum kind)kind, 0, &a, &b);
        assert_int_equal(ring_init(&ring, &pool, 100000), 0);
        carrier_free(b);
        assert_int_equal(carrier_recv(a, &ring, 1000), 0);
        ring_put(&ring, 0, 50000);
        for (int i = 0; i < 5 && r > 0; i++)
            r = carrier_send(a, &ring);
        assert_int_equal(r, -EPIPE); /* and no SIGPIPE */
        ring_clear(&ring);
        carrier_free(a);
    }
}

/* ---- A client of GnuTLS's own against our accepting side ---- */

struct client {
    int fd;
    gnutls_session_t session;
    gnutls_psk_client_credentials_t credentials;
};

static void client_init(struct client *client, int fd, const char *priorities, const char *identity)
{
    uint8_t copy[KEY_SIZE];
    const gnutls_datum_t datum = {copy, KEY_SIZE};

    memcpy(copy, key, KEY_SIZE);
    client->fd = fd;
    assert_int_equal(gnutls_init(&client->session, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL), 0);
    assert_int_equal(gnutls_priority_set_direct(client->session, priorities, NULL), 0);
    assert_int_equal(gnutls_psk_allocate_client_credentials(&client->credentials), 0);
    assert_int_equal(
        gnutls_psk_set_client_credentials(client->credentials, identity, &datum, GNUTLS_PSK_KEY_RAW), 0);
    assert_int_equal(gnutls_credentials_set(client->session, GNUTLS_CRD_PSK, client->credentials), 0);
    gnutls_transport_set_int(client->session, fd);
}

static void client_clear(struct client *client)
{
    gnutls_deinit(client->session);
    gnutls_psk_free_client_credentials(client->credentials);
    close(client->fd);
}

/* What our side comes to; ret_client, if given, is the client's after a handshake that both made. */
static int accept_client(const char *priorities, const char *identity, struct client *client,
                         struct carrier **ret)
{
    int pair[2], r = -EAGAIN, c = GNUTLS_E_AGAIN;

    test_pair(SOCK_STREAM, 0, pair);
    client_init(client, pair[0], priorities, identity);
    *ret = make(TLS, pair[1], false, &preamble, key);
    for (int rounds = 0; rounds < 100 && (r == -EAGAIN || c == GNUTLS_E_AGAIN); rounds++) {
        if (c == GNUTLS_E_AGAIN || c == GNUTLS_E_INTERRUPTED)
            c = gnutls_handshake(client->session);
        if (r == -EAGAIN)
            r = (*ret)->ops->handshake(*ret);
        if (r < 0 && r != -EAGAIN)
            *ret = carrier_free(*ret);
        if (r < 0 && r != -EAGAIN && c != GNUTLS_E_AGAIN)
            break;
    }
    assert_true((r == 0) == (c == 0));
    return r;
}

#define OURS     "NONE:+VERS-TLS1.3:+AEAD:+SHA256:+SIGN-ALL:"
#define IDENTITY "0123456789abcdef"

TEST(test_tls_what_is_taken)
{
    static const struct {
        const char *priorities;
        gnutls_cipher_algorithm_t cipher;
    } cases[] = {
        {OURS "+AES-128-GCM:+ECDHE-PSK:+GROUP-X25519", GNUTLS_CIPHER_AES_128_GCM},
        {OURS "+CHACHA20-POLY1305:+ECDHE-PSK:+GROUP-X25519", GNUTLS_CIPHER_CHACHA20_POLY1305},
        {"NORMAL:-KX-ALL:+ECDHE-PSK", GNUTLS_CIPHER_UNKNOWN}, /* any of the two */
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        struct client client;
        struct carrier *b;

        assert_int_equal(accept_client(cases[i].priorities, IDENTITY, &client, &b), 0);
        assert_int_equal(gnutls_protocol_get_version(client.session), GNUTLS_TLS1_3);
        if (cases[i].cipher != GNUTLS_CIPHER_UNKNOWN)
            assert_int_equal(gnutls_cipher_get(client.session), cases[i].cipher);
        assert_int_equal(gnutls_group_get(client.session), GNUTLS_GROUP_X25519);
        assert_int_equal(gnutls_prf_hash_get(client.session), GNUTLS_DIG_SHA256);
        assert_int_equal(gnutls_session_is_resumed(client.session), 0);
        client_clear(&client);
        carrier_free(b);
    }
}

TEST(test_tls_what_is_not)
{
    static const char *const cases[] = {
        "NONE:+VERS-TLS1.2:+AES-128-GCM:+CHACHA20-POLY1305:+AEAD:+SHA256:+ECDHE-PSK:+DHE-PSK:+PSK:+GROUP-ALL:"
        "+SIGN-ALL",
        "NONE:+VERS-TLS1.2:+VERS-TLS1.1:+VERS-TLS1.0:+CIPHER-ALL:+MAC-ALL:+ECDHE-PSK:+DHE-PSK:+PSK:+GROUP-"
        "ALL:+SIGN-ALL",
        OURS "+AES-256-GCM:+SHA384:+ECDHE-PSK:+GROUP-X25519",
        OURS "+AES-128-CCM:+ECDHE-PSK:+GROUP-X25519",
        OURS "+AES-128-GCM:+ECDHE-PSK:+GROUP-SECP256R1",
        OURS "+AES-128-GCM:+DHE-PSK:+GROUP-FFDHE2048",
        OURS "+AES-128-GCM:+PSK:+GROUP-X25519",       /* without forward secrecy */
        OURS "+AES-128-GCM:+ECDHE-RSA:+GROUP-X25519", /* without the key */
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        struct client client;
        struct carrier *b;

        assert_int_equal(accept_client(cases[i], IDENTITY, &client, &b), -EKEYREJECTED);
        assert_null(b);
        client_clear(&client);
    }
}

TEST(test_tls_other_identity)
{
    static const char *const cases[] = {"0123456789abcdee", "0123456789abcdef0", "0123456789abcde", "x",
                                        "0123456789ABCDEF"};

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        struct client client;
        struct carrier *b;

        assert_int_equal(accept_client(OURS "+AES-128-GCM:+ECDHE-PSK:+GROUP-X25519", cases[i], &client, &b),
                         -EKEYREJECTED);
        client_clear(&client);
    }
}

/* A KeyUpdate in the middle of the stream: GnuTLS says "again" with data at hand. */
TEST(test_tls_key_update)
{
    struct ring_pool pool = {0};
    struct ring in;
    struct client client;
    struct carrier *b;
    uint8_t data[3000], back[3000];
    size_t got = 0;

    assert_int_equal(accept_client(OURS "+AES-128-GCM:+ECDHE-PSK:+GROUP-X25519", IDENTITY, &client, &b), 0);
    test_fill(data, sizeof(data), 0);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(gnutls_record_send(client.session, data + 1000 * i, 1000), 1000);
        assert_int_equal(gnutls_session_key_update(client.session, i == 1 ? GNUTLS_KU_PEER : 0), 0);
    }
    assert_int_equal(ring_init(&in, &pool, 5000), 0);
    for (int i = 0; i < 10 && got < 3000; i++) {
        ssize_t r = carrier_recv(b, &in, 5000);

        assert_true(r > 0);
        got += (size_t)r;
    }
    assert_int_equal(ring_copy(&in, back, sizeof(back)), 3000);
    assert_memory_equal(data, back, sizeof(data));
    assert_int_equal(carrier_recv(b, &in, 5000), -EAGAIN);
    ring_clear(&in);
    client_clear(&client);
    carrier_free(b);
}

/* ---- In a loop of events ---- */

struct seen {
    sd_event *event;
    struct carrier *carrier;
    uint32_t revents;
    int n;
    bool free_it;
};

static void on_ready(struct carrier *carrier, uint32_t revents, void *userdata)
{
    struct seen *seen = userdata;

    assert_ptr_equal(carrier, seen->carrier);
    seen->revents = revents;
    seen->n++;
    if (seen->free_it)
        seen->carrier = carrier_free(carrier);
}

TEST(test_events)
{
    struct seen seen = {0};
    int pair[2];

    test_pair(SOCK_STREAM, 0, pair);
    seen.carrier = make(PLAIN, pair[0], false, NULL, NULL);
    assert_true(sd_event_new(&seen.event) >= 0);
    assert_int_equal(carrier_attach(seen.carrier, seen.event, on_ready, &seen), 0);
    assert_int_equal(send(pair[1], "x", 1, 0), 1);
    assert_int_equal(sd_event_run(seen.event, 0), 0); /* nothing is waited for yet */
    carrier_watch(seen.carrier, EPOLLIN);
    assert_true(sd_event_run(seen.event, 1000000) > 0);
    assert_int_equal(seen.n, 1);
    assert_int_equal(seen.revents, EPOLLIN);
    carrier_watch(seen.carrier, EPOLLOUT);
    assert_true(sd_event_run(seen.event, 1000000) > 0);
    assert_int_equal(seen.revents, EPOLLOUT);

    /* The other end is gone, and nothing is waited for: a hang-up must not spin the loop. */
    carrier_watch(seen.carrier, 0);
    close(pair[1]);
    for (int i = 0; i < 3; i++)
        assert_int_equal(sd_event_run(seen.event, 0), 0);
    assert_int_equal(seen.n, 2);

    /* It may be freed where it says that it is ready. */
    seen.free_it = true;
    assert_int_equal(carrier_attach(seen.carrier, seen.event, on_ready, &seen), 0);
    carrier_watch(seen.carrier, EPOLLIN);
    assert_true(sd_event_run(seen.event, 1000000) > 0);
    assert_null(seen.carrier);
    assert_int_equal(sd_event_run(seen.event, 0), 0);
    assert_int_equal(seen.n, 3);
    sd_event_unref(seen.event);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_transfer_plain),
        CASE(test_transfer_tls),
        CASE(test_free_of_nothing),
        CASE(test_export_key),
        CASE(test_wrong_key),
        CASE(test_wrong_id),
        CASE(test_other_security),
        CASE(test_rejection),
        CASE(test_bad_rejection),
        CASE(test_rejection_to_the_accepting_side),
        CASE(test_garbage),
        CASE(test_closed_in_the_handshake),
        CASE(test_plain_reads_no_further),
        CASE(test_plain_reads_no_further_when_connecting),
        CASE(test_tls_byte_by_byte),
        CASE(test_tls_cut),
        CASE(test_tls_flipped),
        CASE(test_tls_holds_input),
        CASE(test_tls_holds_output),
        CASE(test_eof_and_broken),
        CASE(test_tls_what_is_taken),
        CASE(test_tls_what_is_not),
        CASE(test_tls_other_identity),
        CASE(test_tls_key_update),
        CASE(test_events),
    };

    return cmocka_run_group_tests_name("carrier", tests, NULL, NULL);
}
