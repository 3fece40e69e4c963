/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tls-client.h"

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
            assert_between(at, 3, 4);
            close(m.b);
            m.b = -1;
            r = carrier_recv(m.accepting, &in, 2000);
        }
        assert_true(r == -EPROTO || r == 0);
        assert_int_equal(in.end, 0);
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

        assert_between(r, 1, 1000);
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

/* ---- A client of GnuTLS's own against our accepting side ---- */

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

/* What this CPU does faster is what the connecting side names first. */
TEST(test_tls_cipher_of_the_cpu)
{
    struct carrier *carrier;
    uint8_t hello[1024];
    char line[4096];
    bool aes = false, other = true;
    FILE *info = fopen("/proc/cpuinfo", "re");
    int pair[2];
    ssize_t n;

    assert_non_null(info);
    while (fgets(line, sizeof(line), info))
        if (strncmp(line, "flags", 5) == 0) {
            other = false;
            aes = aes || (strstr(line, " aes ") && strstr(line, " pclmulqdq "));
        }
    fclose(info);
    if (other)
        skip(); /* cpuinfo of another architecture */
    test_pair(SOCK_STREAM, 0, pair);
    assert_int_equal(
        carrier_tls_new(pair[0], true, &preamble, key, CARRIER_TLS_BUFFER_MIN, aeads_chosen(), &carrier), 0);
    assert_int_equal(carrier->ops->handshake(carrier), -EAGAIN);
    n = recv(pair[1], hello, sizeof(hello), 0);
    /* RFC 8446, 4.1.2: after the headers of record and message, version and random, the session id. */
    assert_true(n > 44 && n > 44 + hello[43] + 4);
    assert_int_equal(hello[44 + hello[43] + 2], 0x13);
    assert_int_equal(hello[44 + hello[43] + 3], aes ? 0x01 : 0x03);
    carrier_free(carrier);
    close(pair[1]);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_tls_byte_by_byte),      CASE(test_tls_cut),          CASE(test_tls_flipped),
        CASE(test_tls_holds_input),       CASE(test_tls_holds_output), CASE(test_tls_what_is_taken),
        CASE(test_tls_cipher_of_the_cpu), CASE(test_tls_what_is_not),  CASE(test_tls_other_identity),
    };

    return cmocka_run_group_tests_name("carrier-tls", tests, NULL, NULL);
}
