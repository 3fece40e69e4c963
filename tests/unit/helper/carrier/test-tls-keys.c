/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tls-client.h"

#include "helper/carrier/record.h"

/* What follows the handshake: records of ours and of GnuTLS's, and their keys. */

#define GOOD OURS "+AES-128-GCM:+ECDHE-PSK:+GROUP-X25519"

/* A client of GnuTLS's, our side, and what came to each. */
struct talk {
    struct client client;
    struct carrier *b;
    struct ring_pool pool;
    struct ring in, out;
    int updates; /* KeyUpdates that came to the client */
};

static int on_update(gnutls_session_t session, unsigned type, unsigned when, unsigned incoming,
                     const gnutls_datum_t *message)
{
    struct talk *talk = gnutls_session_get_ptr(session);

    (void)type, (void)when;
    if (incoming) {
        talk->updates++;
        assert_int_equal(message->size, 1);
        assert_int_equal(message->data[0], 0); /* none of ours asks for one */
    }
    return 0;
}

static void talk_init(struct talk *talk)
{
    *talk = (struct talk){0};
    assert_int_equal(accept_client(GOOD, IDENTITY, &talk->client, &talk->b), 0);
    gnutls_session_set_ptr(talk->client.session, talk);
    gnutls_handshake_set_hook_function(talk->client.session, GNUTLS_HANDSHAKE_KEY_UPDATE, GNUTLS_HOOK_PRE,
                                       on_update);
    assert_int_equal(ring_init(&talk->in, &talk->pool, 100000), 0);
    assert_int_equal(ring_init(&talk->out, &talk->pool, 100000), 0);
}

static void talk_clear(struct talk *talk)
{
    ring_clear(&talk->in);
    ring_clear(&talk->out);
    client_clear(&talk->client);
    carrier_free(talk->b);
}

/* The client says so many bytes more, in one record. */
static void client_says(struct talk *talk, uint64_t offset, size_t size)
{
    uint8_t data[1000];

    test_fill(data, size, offset);
    assert_int_equal(gnutls_record_send(talk->client.session, data, size), size);
}

/* Our side says so many, and the client hears them. */
static void client_hears(struct talk *talk, size_t size)
{
    uint64_t offset = talk->out.end, got = 0;
    uint8_t data[1000];
    ssize_t n;

    ring_put(&talk->out, offset, size);
    assert_int_equal(carrier_send(talk->b, &talk->out), size);
    while (got < size) {
        n = gnutls_record_recv(talk->client.session, data, sizeof(data));
        if (n == GNUTLS_E_AGAIN)
            continue;
        assert_true(n > 0);
        test_expect(data, (size_t)n, offset + got);
        got += (size_t)n;
    }
    ring_release(&talk->out, talk->out.cursor);
}

/* What came, up to an end or an error: that. */
static ssize_t hear_all(struct talk *talk)
{
    ssize_t r;

    while ((r = carrier_recv(talk->b, &talk->in, 100000)) > 0)
        ;
    return r;
}

static void expect_in(struct talk *talk, size_t size)
{
    uint8_t data[10000];

    assert_int_equal(ring_copy(&talk->in, data, sizeof(data)), size);
    test_expect(data, size, 0);
}

/* The client's KeyUpdates, of which one asks for one of ours: it goes before the next of our bytes. */
TEST(test_tls_key_update)
{
    struct talk talk;

    talk_init(&talk);
    client_hears(&talk, 500);
    for (size_t i = 0; i < 3; i++) {
        client_says(&talk, 1000 * i, 1000);
        assert_int_equal(gnutls_session_key_update(talk.client.session, i == 1 ? GNUTLS_KU_PEER : 0), 0);
    }
    client_says(&talk, 3000, 1000);
    assert_int_equal(hear_all(&talk), -EAGAIN);
    expect_in(&talk, 4000);
    assert_false(talk.b->ops->holds_output(talk.b));
    client_hears(&talk, 700);
    assert_int_equal(talk.updates, 1);
    client_hears(&talk, 700);
    assert_int_equal(talk.updates, 1);
    client_says(&talk, 4000, 1000);
    assert_int_equal(hear_all(&talk), -EAGAIN);
    expect_in(&talk, 5000);
    talk_clear(&talk);
}

/* In the read that brings it there is nothing else; and there is no room for what follows it. */
TEST(test_tls_key_update_alone)
{
    struct talk talk;

    talk_init(&talk);
    assert_int_equal(gnutls_session_key_update(talk.client.session, GNUTLS_KU_PEER), 0);
    assert_int_equal(hear_all(&talk), -EAGAIN);
    assert_false(carrier_holds_input(talk.b));
    client_says(&talk, 0, 1000);
    assert_int_equal(carrier_recv(talk.b, &talk.in, 300), 300);
    assert_true(carrier_holds_input(talk.b));
    assert_int_equal(hear_all(&talk), -EAGAIN);
    expect_in(&talk, 1000);
    client_hears(&talk, 100);
    assert_int_equal(talk.updates, 1);
    talk_clear(&talk);
}

/* Our keys wear out; the client asks for a new one just then, too. */
TEST(test_tls_renewal)
{
    struct talk talk;

    carrier_tls_renewal = 10;
    talk_init(&talk);
    for (int i = 0; i < 35; i++)
        client_hears(&talk, 100);
    assert_int_equal(talk.updates, 3);
    for (int i = 0; i < 5; i++)
        client_hears(&talk, 100); /* 10 under this key: the first record of it was GnuTLS's */
    assert_int_equal(gnutls_session_key_update(talk.client.session, GNUTLS_KU_PEER), 0);
    assert_int_equal(hear_all(&talk), -EAGAIN);
    client_hears(&talk, 100);
    assert_true(talk.updates >= 4);
    carrier_tls_renewal = RECORDS_MAX;
    client_hears(&talk, 900);
    client_says(&talk, 0, 1000);
    assert_int_equal(hear_all(&talk), -EAGAIN);
    expect_in(&talk, 1000);
    talk_clear(&talk);
}

/* No record but of application data does harm, and what ends the connection goes on to do so. */
TEST(test_tls_ends)
{
    enum { CLOSE, ALERT, WARNING, FLOOD, CASES };

    for (int i = 0; i < CASES; i++) {
        struct talk talk;

        talk_init(&talk);
        client_says(&talk, 0, 1000);
        if (i == CLOSE)
            assert_int_equal(gnutls_bye(talk.client.session, GNUTLS_SHUT_WR), 0);
        else if (i == ALERT)
            assert_int_equal(gnutls_alert_send(talk.client.session, GNUTLS_AL_FATAL, GNUTLS_A_BAD_RECORD_MAC),
                             0);
        else if (i == WARNING)
            assert_int_equal(
                gnutls_alert_send(talk.client.session, GNUTLS_AL_WARNING, GNUTLS_A_USER_CANCELED), 0);
        else
            for (int n = 0; n < 50; n++)
                assert_int_equal(gnutls_session_key_update(talk.client.session, 0), 0);
        if (i == FLOOD)
            client_says(&talk, 1000, 1000);
        for (int again = 0; again < 3; again++)
            assert_int_equal(hear_all(&talk), i == CLOSE ? 0 : -EPROTO);
        expect_in(&talk, 1000);
        talk_clear(&talk);
    }
}

/* ---- Nonces across renewals ---- */

static struct used {
    uint8_t key[16];
    uint8_t nonce[AEAD_NONCE];
} * used;
static size_t n_used, n_keys;

struct noting {
    uint8_t key[16];
    void *real;
};

static void *noting_new(enum aead_cipher cipher, const uint8_t *secret)
{
    struct noting *noting = calloc(1, sizeof(*noting));

    memcpy(noting->key, secret, sizeof(noting->key));
    noting->real = aead_gnutls.new_key(cipher, secret);
    n_keys++;
    return noting;
}

static void noting_free(void *p)
{
    struct noting *noting = p;

    aead_gnutls.free_key(noting->real);
    free(noting);
}

static int noting_seal(void *p, const uint8_t nonce[static AEAD_NONCE],
                       const uint8_t aside[static AEAD_ASIDE], const uint8_t *plain, size_t size,
                       uint8_t last, uint8_t *out)
{
    struct noting *noting = p;

    memcpy(used[n_used].key, noting->key, sizeof(noting->key));
    memcpy(used[n_used++].nonce, nonce, AEAD_NONCE);
    return aead_gnutls.seal(noting->real, nonce, aside, plain, size, last, out);
}

static int noting_open(void *p, const uint8_t nonce[static AEAD_NONCE],
                       const uint8_t aside[static AEAD_ASIDE], const uint8_t *sealed, size_t size,
                       uint8_t *out)
{
    return aead_gnutls.open(((struct noting *)p)->real, nonce, aside, sealed, size, out);
}

static int compare(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct used));
}

/* No pair of key and nonce serves twice; and all of a key's, but the two records that GnuTLS has made under
 * it, are there. */
TEST(test_tls_nonces)
{
    static const struct aead noting = {.name = "noting",
                                       .new_key = noting_new,
                                       .free_key = noting_free,
                                       .seal = noting_seal,
                                       .open = noting_open};
    const struct aead_choice choice = {AEAD_AES_128_GCM, {&noting, &noting}};
    enum { RECORDS = 600, EACH = 100 };
    struct ring_pool pool = {0};
    struct carrier *a, *b;
    struct ring out, in;
    int pair[2], r[2];

    used = calloc(RECORDS, sizeof(*used));
    n_used = n_keys = 0;
    carrier_tls_renewal = EACH;
    test_pair(SOCK_STREAM, 0, pair);
    assert_int_equal(carrier_tls_new(pair[0], true, &preamble, key, CARRIER_TLS_BUFFER_MIN, &choice, &a), 0);
    assert_int_equal(carrier_tls_new(pair[1], false, &preamble, key, CARRIER_TLS_BUFFER_MIN, &choice, &b), 0);
    shake(&a, &b, &r[0], &r[1]);
    assert_int_equal(r[0] | r[1], 0);
    assert_int_equal(ring_init(&out, &pool, 1000), 0);
    assert_int_equal(ring_init(&in, &pool, 1000), 0);
    for (uint64_t i = 0; i < RECORDS; i++) {
        ring_put(&out, i, 1);
        assert_int_equal(carrier_send(a, &out), 1);
        ring_release(&out, out.cursor);
        assert_int_equal(carrier_recv(b, &in, 1000), 1);
        ring_advance(&in, 1);
        ring_release(&in, in.cursor);
    }
    /* The first key sealed EACH records; then GnuTLS made the KeyUpdate, and the first record of the next
     * key. */
    assert_int_equal(n_used, RECORDS - (RECORDS - 1) / EACH);
    assert_int_equal(n_keys, 4 + 2 * ((RECORDS - 1) / EACH)); /* two of each end, and each renewal at both */
    qsort(used, n_used, sizeof(*used), compare);
    for (size_t i = 1; i < n_used; i++)
        assert_true(compare(&used[i - 1], &used[i]) < 0);
    carrier_tls_renewal = RECORDS_MAX;
    ring_clear(&out);
    ring_clear(&in);
    carrier_free(a);
    carrier_free(b);
    free(used);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_tls_key_update), CASE(test_tls_key_update_alone), CASE(test_tls_renewal),
        CASE(test_tls_ends),       CASE(test_tls_nonces),
    };

    return cmocka_run_group_tests_name("carrier-tls-keys", tests, NULL, NULL);
}
