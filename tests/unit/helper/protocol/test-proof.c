/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "helper/protocol/proof.h"

static const uint8_t key[KEY_SIZE] = {1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16,
                                      17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32};
static const struct preamble preamble = {PEER_CONTROL, 0x0123456789abcdef};

/* Both ends of a connection, and what they came to. */
struct ends {
    struct proof a; /* connecting */
    struct proof b; /* accepting */
    enum verdict a_says, b_says;
};

static void ends_init(struct ends *ends)
{
    *ends = (struct ends){.a_says = VERDICT_MORE, .b_says = VERDICT_MORE};
    assert_int_equal(proof_init(&ends->a, true, &preamble, key), 0);
    assert_int_equal(proof_init(&ends->b, false, &preamble, key), 0);
}

/* Takes what a side has to send. */
static size_t take(struct proof *from, uint8_t ret[static PROOF_MAX])
{
    size_t n = from->n_out - from->n_sent;

    memcpy(ret, from->out + from->n_sent, n);
    from->n_sent += n;
    return n;
}

/* All three messages, in pieces of at most step bytes; stops where somebody has a verdict against it. */
static void meet(struct ends *ends, size_t step)
{
    for (int turn = 0; turn < 3; turn++) {
        bool to_b = turn % 2 == 0;
        struct proof *to = to_b ? &ends->b : &ends->a;
        enum verdict *says = to_b ? &ends->b_says : &ends->a_says;
        uint8_t message[PROOF_MAX];
        size_t size = take(to_b ? &ends->a : &ends->b, message);

        for (size_t at = 0; at < size && *says == VERDICT_MORE; at += step)
            *says = proof_feed(to, message + at, size - at < step ? size - at : step);
        if (*says == VERDICT_BAD)
            return;
    }
}

TEST(test_both_meet)
{
    struct ends ends;
    uint8_t a_key[KEY_SIZE], b_key[KEY_SIZE], earlier[KEY_SIZE] = {0};

    for (int i = 0; i < 2; i++) {
        ends_init(&ends);
        assert_int_equal(ends.a.n_out, PROOF_HELLO);
        assert_int_equal(ends.b.n_out, 0); /* who accepts says nothing first */
        meet(&ends, SIZE_MAX);
        assert_int_equal(ends.a_says, VERDICT_OK);
        assert_int_equal(ends.b_says, VERDICT_OK);
        assert_int_equal(ends.a.n_need, 0);
        assert_int_equal(ends.b.n_need, 0);
        assert_int_equal(proof_export(&ends.a, a_key), 0);
        assert_int_equal(proof_export(&ends.b, b_key), 0);
        assert_memory_equal(a_key, b_key, KEY_SIZE);
        assert_memory_not_equal(a_key, earlier, KEY_SIZE);
        memcpy(earlier, a_key, KEY_SIZE);
        proof_clear(&ends.a);
        assert_memory_not_equal(ends.a.key, key, KEY_SIZE);
    }
}

TEST(test_in_pieces)
{
    for (size_t step = 1; step <= PROOF_MAX; step++) {
        struct ends ends;

        ends_init(&ends);
        meet(&ends, step);
        assert_int_equal(ends.a_says, VERDICT_OK);
        assert_int_equal(ends.b_says, VERDICT_OK);
    }
}

static void expect_refused(const struct preamble *b_preamble, const uint8_t b_key[static KEY_SIZE])
{
    struct ends ends;
    uint8_t hello[PROOF_MAX], answer[PROOF_MAX];
    uint8_t forged[PROOF_MAC];

    ends_init(&ends);
    assert_int_equal(proof_init(&ends.b, false, b_preamble, b_key), 0);
    meet(&ends, SIZE_MAX);
    assert_int_equal(ends.a_says, VERDICT_BAD);
    assert_int_equal(ends.b_says, VERDICT_MORE);

    /* And a connecting side that goes on all the same, with what it can compute itself. */
    ends_init(&ends);
    assert_int_equal(proof_init(&ends.b, false, b_preamble, b_key), 0);
    assert_int_equal(proof_feed(&ends.b, hello, take(&ends.a, hello)), VERDICT_MORE);
    take(&ends.b, answer);
    memcpy(ends.a.nonces[1], answer + 32, 32);
    assert_int_equal(proof_export(&ends.a, forged), 0);
    assert_int_equal(proof_feed(&ends.b, forged, PROOF_MAC), VERDICT_BAD);
}

TEST(test_wrong_key)
{
    for (size_t bit = 0; bit < 8 * KEY_SIZE; bit += 37) {
        uint8_t other[KEY_SIZE];

        memcpy(other, key, KEY_SIZE);
        other[bit / 8] ^= (uint8_t)(1U << bit % 8);
        expect_refused(&preamble, other);
    }
}

TEST(test_wrong_id)
{
    const struct preamble other = {preamble.kind, preamble.id ^ ((uint64_t)1 << 63)};

    expect_refused(&other, key);
}

TEST(test_wrong_kind)
{
    const struct preamble other = {PEER_CHANNEL, preamble.id};

    expect_refused(&other, key);
}

/* Each side gets its own message back. */
TEST(test_reflected)
{
    struct ends ends;
    uint8_t message[2 * PROOF_MAX] = {0};

    ends_init(&ends);
    take(&ends.a, message);
    assert_int_equal(proof_feed(&ends.a, message, PROOF_HELLO + PROOF_MAC), VERDICT_BAD);

    ends_init(&ends);
    assert_int_equal(proof_feed(&ends.b, message, take(&ends.a, message)), VERDICT_MORE);
    take(&ends.b, message);
    assert_int_equal(proof_feed(&ends.b, message + PROOF_HELLO, PROOF_MAC), VERDICT_BAD);
}

/* A second connection, opened to be given the answers of the first: two accepting sides know the same key. */
TEST(test_reflected_over_another_connection)
{
    struct proof one, two;
    uint8_t hello[PROOF_MAX], answer[PROOF_MAX], other[PROOF_MAX];

    assert_int_equal(proof_init(&one, false, &preamble, key), 0);
    assert_int_equal(proof_init(&two, false, &preamble, key), 0);
    memset(hello, 0, sizeof(hello));
    hello[0] = 1;
    assert_int_equal(proof_feed(&one, hello, PROOF_HELLO), VERDICT_MORE);
    take(&one, answer);
    /* The nonce of the first as one's own. */
    memcpy(hello + 32, answer + 32, 32);
    assert_int_equal(proof_feed(&two, hello, PROOF_HELLO), VERDICT_MORE);
    take(&two, other);
    assert_int_equal(proof_feed(&one, other + PROOF_HELLO, PROOF_MAC), VERDICT_BAD);
    assert_int_equal(proof_feed(&two, answer + PROOF_HELLO, PROOF_MAC), VERDICT_BAD);
}

TEST(test_replayed)
{
    struct ends ends;
    struct proof again;
    uint8_t hello[PROOF_MAX], answer[PROOF_MAX], last[PROOF_MAX];

    ends_init(&ends);
    assert_int_equal(proof_feed(&ends.b, hello, take(&ends.a, hello)), VERDICT_MORE);
    assert_int_equal(proof_feed(&ends.a, answer, take(&ends.b, answer)), VERDICT_OK);
    assert_int_equal(take(&ends.a, last), PROOF_MAC);
    assert_int_equal(proof_feed(&ends.b, last, PROOF_MAC), VERDICT_OK);

    /* The connecting side's two messages, at another connection. */
    assert_int_equal(proof_init(&again, false, &preamble, key), 0);
    assert_int_equal(proof_feed(&again, hello, PROOF_HELLO), VERDICT_MORE);
    assert_int_equal(proof_feed(&again, last, PROOF_MAC), VERDICT_BAD);
    /* The accepting side's answer, to another connection. */
    assert_int_equal(proof_init(&again, true, &preamble, key), 0);
    assert_int_equal(proof_feed(&again, answer, PROOF_MAX), VERDICT_BAD);
    /* Nothing more is taken after the end. */
    assert_int_equal(proof_feed(&ends.b, last, PROOF_MAC), VERDICT_BAD);
    assert_int_equal(proof_feed(&ends.a, last, 1), VERDICT_BAD);
}

/* Any bit of any message: who gets it, or who gets the answer to it, refuses; never do both accept. */
TEST(test_any_bit_flipped)
{
    static const size_t sizes[] = {PROOF_HELLO, PROOF_HELLO + PROOF_MAC, PROOF_MAC};

    for (int turn = 0; turn < 3; turn++) {
        for (size_t at = 0; at < sizes[turn]; at++) {
            struct ends ends;
            uint8_t message[PROOF_MAX];
            uint8_t flip = (uint8_t)(1U << test_random() % 8);

            ends_init(&ends);
            take(&ends.a, message);
            if (turn == 0)
                message[at] ^= flip;
            ends.b_says = proof_feed(&ends.b, message, PROOF_HELLO);
            if (turn == 0 && at < 32) {
                assert_int_equal(ends.b_says, VERDICT_BAD);
                continue;
            }
            assert_int_equal(ends.b_says, VERDICT_MORE);
            take(&ends.b, message);
            if (turn == 1)
                message[at] ^= flip;
            ends.a_says = proof_feed(&ends.a, message, PROOF_MAX);
            if (turn < 2) {
                assert_int_equal(ends.a_says, VERDICT_BAD);
                continue;
            }
            assert_int_equal(ends.a_says, VERDICT_OK);
            take(&ends.a, message);
            message[at] ^= flip;
            assert_int_equal(proof_feed(&ends.b, message, PROOF_MAC), VERDICT_BAD);
        }
    }
}

TEST(test_too_many_bytes)
{
    struct ends ends;
    uint8_t message[PROOF_MAX + 1] = {0};

    ends_init(&ends);
    assert_int_equal(proof_feed(&ends.b, message, PROOF_HELLO + 1), VERDICT_BAD);
    assert_int_equal(proof_feed(&ends.a, message, PROOF_MAX + 1), VERDICT_BAD);
    ends_init(&ends);
    assert_int_equal(proof_feed(&ends.b, message, PROOF_HELLO - 1), VERDICT_MORE);
    assert_int_equal(proof_feed(&ends.b, message, 2), VERDICT_BAD);
}

/* Nothing fed is no verdict: neither before, nor after one. */
TEST(test_no_bytes)
{
    struct ends ends;
    uint8_t message[PROOF_MAX];

    ends_init(&ends);
    assert_int_equal(proof_feed(&ends.a, message, 0), VERDICT_MORE);
    assert_int_equal(proof_feed(&ends.b, message, 0), VERDICT_MORE);
    memset(message, 7, sizeof(message));
    assert_int_equal(proof_feed(&ends.b, message, PROOF_HELLO), VERDICT_BAD);
    assert_int_not_equal(proof_feed(&ends.b, message, 0), VERDICT_OK);
}

TEST(test_derived_keys)
{
    uint8_t one[KEY_SIZE], same[KEY_SIZE], other[KEY_SIZE], secret[KEY_SIZE];
    char label[66];

    assert_int_equal(key_derive(key, 1, "control", one), 0);
    assert_int_equal(key_derive(key, 1, "control", same), 0);
    assert_memory_equal(one, same, KEY_SIZE);
    assert_int_equal(key_derive(key, 2, "control", other), 0);
    assert_memory_not_equal(one, other, KEY_SIZE);
    assert_int_equal(key_derive(key, 1, "channel", other), 0);
    assert_memory_not_equal(one, other, KEY_SIZE);
    memcpy(secret, key, KEY_SIZE);
    secret[31] ^= 1;
    assert_int_equal(key_derive(secret, 1, "control", other), 0);
    assert_memory_not_equal(one, other, KEY_SIZE);
    memset(label, 'x', sizeof(label));
    label[65] = '\0';
    assert_int_equal(key_derive(key, 1, label, other), -EINVAL);
    label[64] = '\0';
    assert_int_equal(key_derive(key, 1, label, other), 0);
}

/* Against python3's hmac: prk = HMAC(salt = id, secret), okm = HMAC(prk, label ‖ 1). */
TEST(test_derivation_is_hkdf)
{
    static const uint8_t want[KEY_SIZE] = {0x7d, 0x21, 0x4b, 0x53, 0x0b, 0xb5, 0xdb, 0xc6, 0x1e, 0xd7, 0x2c,
                                           0x43, 0x6b, 0x62, 0xbd, 0x27, 0x6e, 0x6b, 0xe8, 0xfe, 0x98, 0x6d,
                                           0x94, 0x7c, 0xb8, 0x66, 0xba, 0x09, 0xae, 0x01, 0xd5, 0xa1};
    uint8_t got[KEY_SIZE];

    assert_int_equal(key_derive(key, 0x0102030405060708, "vmferry test", got), 0);
    assert_memory_equal(got, want, KEY_SIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_both_meet),
        CASE(test_in_pieces),
        CASE(test_wrong_key),
        CASE(test_wrong_id),
        CASE(test_wrong_kind),
        CASE(test_reflected),
        CASE(test_reflected_over_another_connection),
        CASE(test_replayed),
        CASE(test_any_bit_flipped),
        CASE(test_too_many_bytes),
        CASE(test_no_bytes),
        CASE(test_derived_keys),
        CASE(test_derivation_is_hkdf),
    };

    return cmocka_run_group_tests_name("proof", tests, NULL, NULL);
}
