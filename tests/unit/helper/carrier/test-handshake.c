/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "carrier-rig.h"

#include "common/error.h"

static const uint8_t other_key[KEY_SIZE] = "another key of thirty-two bytes.";

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
    *ret_rejected = carrier->handshake.rejected;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
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
    };

    return cmocka_run_group_tests_name("carrier-handshake", tests, NULL, NULL);
}
