/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "broker/net/ticket.h"

#include <gnutls/crypto.h>
#include <nettle/base64.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static struct ticket sample(uint32_t n_endpoints)
{
    struct ticket ticket = {.id = 0x0123456789abcdef, .expiry = 1767225600000000, .n_endpoints = n_endpoints};

    for (size_t i = 0; i < sizeof(ticket.secret); i++)
        ticket.secret[i] = (uint8_t)(i * 37 + 11);
    for (uint32_t i = 0; i < n_endpoints; i++)
        snprintf(ticket.endpoints[i], ADDRESS_TEXT_MAX, "tcp:192.0.2.%u:16520", i);
    return ticket;
}

/* Decodes from memory of exactly the text's size. */
static enum ticket_verdict decode(const char *text, struct ticket *ret)
{
    char *exact = strdup(text);
    enum ticket_verdict verdict;

    memset(ret, 0xee, sizeof(*ret));
    verdict = ticket_decode(exact, ret);
    free(exact);
    if (verdict != TICKET_OK) {
        static const uint8_t zero[MESSAGE_SECRET_SIZE];

        assert_memory_equal(ret->secret, zero, sizeof(zero)); /* no secret of what was refused lies about */
    }
    return verdict;
}

static void expect_same(const struct ticket *a, const struct ticket *b)
{
    assert_true(a->id == b->id);
    assert_true(a->expiry == b->expiry);
    assert_int_equal(a->security, b->security);
    assert_memory_equal(a->secret, b->secret, sizeof(a->secret));
    assert_int_equal(a->n_endpoints, b->n_endpoints);
    for (uint32_t i = 0; i < a->n_endpoints; i++)
        assert_string_equal(a->endpoints[i], b->endpoints[i]);
}

TEST(test_round_trip)
{
    for (uint32_t n = 1; n <= TICKET_ENDPOINTS_MAX; n++) {
        struct ticket ticket = sample(n), got;
        char text[TICKET_TEXT_MAX];

        ticket.security = n % 2 ? SECURITY_TLS : SECURITY_PLAIN;
        assert_int_equal(ticket_encode(&ticket, text), 0);
        assert_int_equal(strncmp(text, "vmferry1:", 9), 0);
        assert_int_equal(strspn(text + 9, alphabet), strlen(text + 9));
        assert_int_equal(decode(text, &got), TICKET_OK);
        expect_same(&got, &ticket);
    }
}

TEST(test_bounds)
{
    struct ticket ticket = sample(TICKET_ENDPOINTS_MAX), got;
    char text[TICKET_TEXT_MAX];

    ticket.id = UINT64_MAX;
    ticket.expiry = UINT64_MAX;
    memset(ticket.secret, 0xff, sizeof(ticket.secret));
    for (int i = 0; i < TICKET_ENDPOINTS_MAX; i++) {
        memset(ticket.endpoints[i], 'x', ADDRESS_TEXT_MAX - 1);
        ticket.endpoints[i][ADDRESS_TEXT_MAX - 1] = '\0';
    }
    assert_int_equal(ticket_encode(&ticket, text), 0);
    assert_true(strlen(text) < TICKET_TEXT_MAX);
    assert_int_equal(decode(text, &got), TICKET_OK);
    expect_same(&got, &ticket);

    ticket = sample(1);
    ticket.id = ticket.expiry = 0;
    memset(ticket.secret, 0, sizeof(ticket.secret));
    strcpy(ticket.endpoints[0], "u");
    assert_int_equal(ticket_encode(&ticket, text), 0);
    assert_int_equal(decode(text, &got), TICKET_OK);
    expect_same(&got, &ticket);
}

TEST(test_cut_anywhere)
{
    for (uint32_t n = 1; n <= 4; n++) {
        struct ticket ticket = sample(n), got;
        char text[TICKET_TEXT_MAX];

        assert_int_equal(ticket_encode(&ticket, text), 0);
        for (size_t cut = strlen(text); cut-- > 0;) {
            text[cut] = '\0';
            assert_int_equal(decode(text, &got), TICKET_BAD);
        }
    }
}

/* Any byte at any place, changed to any other. */
TEST(test_any_byte_changed)
{
    struct ticket ticket = sample(2), got;
    char text[TICKET_TEXT_MAX];
    size_t n;

    assert_int_equal(ticket_encode(&ticket, text), 0);
    n = strlen(text);
    for (size_t at = 0; at < n; at++) {
        for (unsigned v = 0; v < 256; v++) {
            char was = text[at];
            enum ticket_verdict verdict;

            if ((char)v == was)
                continue;
            text[at] = (char)v;
            verdict = decode(text, &got);
            if (at == 7 && v >= '0' && v <= '9')
                assert_int_equal(verdict, TICKET_VERSION);
            else
                assert_int_equal(verdict, TICKET_BAD);
            text[at] = was;
        }
    }
}

TEST(test_appended_or_moved)
{
    struct ticket ticket = sample(2), got;

    for (uint32_t n = 1; n <= 3; n++) {
        char text[TICKET_TEXT_MAX], longer[2 * TICKET_TEXT_MAX];

        ticket = sample(n);
        assert_int_equal(ticket_encode(&ticket, text), 0);
        for (unsigned v = 1; v < 256; v++) {
            const char more[] = {(char)v, '\0'};

            snprintf(longer, sizeof(longer), "%s%s", text, more);
            assert_int_equal(decode(longer, &got), TICKET_BAD);
            snprintf(longer, sizeof(longer), "%s%s", more, text);
            assert_int_equal(decode(longer, &got), TICKET_BAD);
        }
        snprintf(longer, sizeof(longer), "%sAA", text);
        assert_int_equal(decode(longer, &got), TICKET_BAD);
        snprintf(longer, sizeof(longer), "%sAAAA", text);
        assert_int_equal(decode(longer, &got), TICKET_BAD);
        snprintf(longer, sizeof(longer), "%s%s", text, text);
        assert_int_equal(decode(longer, &got), TICKET_BAD);
    }
}

TEST(test_versions)
{
    static const struct {
        const char *text;
        enum ticket_verdict verdict;
    } cases[] = {
        {"vmferry2:AAAA", TICKET_VERSION},
        {"vmferry0:", TICKET_VERSION},
        {"vmferry99999999999999999999:x", TICKET_VERSION},
        {"vmferry10:AA", TICKET_VERSION},
        {"vmferry2", TICKET_BAD},
        {"vmferry:AAAA", TICKET_BAD},
        {"vmferry", TICKET_BAD},
        {"", TICKET_BAD},
        {":", TICKET_BAD},
        {"vmferry1", TICKET_BAD},
        {"vmferry1:", TICKET_BAD},
        {"VMFERRY1:AAAA", TICKET_BAD},
        {" vmferry1:AAAA", TICKET_BAD},
        {"vmferryx2:AAAA", TICKET_BAD},
        {"vmferry2x:AAAA", TICKET_BAD},
        {"vmferry-1:AAAA", TICKET_BAD},
    };
    struct ticket got;

    for (size_t i = 0; i < ELEMENTS(cases); i++)
        assert_int_equal(decode(cases[i].text, &got), cases[i].verdict);
}

/* The bits that base64 leaves over at the end are no second spelling; nor are padding and the other alphabet.
 */
TEST(test_not_canonical)
{
    size_t with_rest = 0;

    for (size_t length = 10; length < 13; length++) {
        struct ticket ticket = sample(1), got;
        char text[TICKET_TEXT_MAX];
        size_t n, step;

        memset(ticket.endpoints[0], 'x', length);
        ticket.endpoints[0][length] = '\0';
        assert_int_equal(ticket_encode(&ticket, text), 0);
        n = strlen(text);
        step = (n - 9) % 4 == 2 ? 16 : (n - 9) % 4 == 3 ? 4 : 0;
        if (step > 0) {
            char *last = text + n - 1, was = *last;
            size_t value = (size_t)(strchr(alphabet, was) - alphabet);

            assert_int_equal(value % step, 0);
            for (size_t rest = 1; rest < step; rest++) {
                *last = alphabet[value + rest];
                assert_int_equal(decode(text, &got), TICKET_BAD);
            }
            *last = was;
            with_rest++;
            strcpy(text + n, step == 16 ? "==" : "=");
            assert_int_equal(decode(text, &got), TICKET_BAD);
            text[n] = '\0';
        }
        assert_int_equal(decode(text, &got), TICKET_OK);
        text[n] = '\n';
        text[n + 1] = '\0';
        assert_int_equal(decode(text, &got), TICKET_BAD);
    }
    assert_int_equal(with_rest, 2);
}

/* A body with a good MAC over anything: who holds a secret can make one, so the parser stands alone behind
 * it. */
static enum ticket_verdict decode_body(uint8_t *body, size_t size, struct ticket *ret)
{
    uint8_t mac[32];
    char text[2 * TICKET_TEXT_MAX];

    assert_between(size, 52, 4000);
    assert_true(gnutls_hmac_fast(GNUTLS_MAC_SHA256, body + 20, 32, body, size, mac) >= 0);
    memcpy(body + size, mac, 16);
    strcpy(text, "vmferry1:");
    base64_encode_raw(text + 9, size + 16, body);
    text[9 + BASE64_ENCODE_RAW_LENGTH(size + 16)] = '\0';
    for (char *c = text + 9; *c; c++)
        *c = *c == '+' ? '-' : *c == '/' ? '_' : *c == '=' ? '\0' : *c;
    return decode(text, ret);
}

TEST(test_bodies)
{
    uint8_t body[4096] = {0};
    struct ticket got;

    body[1] = 1;
    memcpy(body + 52,
           "\x03"
           "abc",
           4);
    assert_int_equal(decode_body(body, 56, &got), TICKET_OK);
    assert_string_equal(got.endpoints[0], "abc");

    body[0] = 2; /* security */
    assert_int_equal(decode_body(body, 56, &got), TICKET_BAD);
    body[0] = 255;
    assert_int_equal(decode_body(body, 56, &got), TICKET_BAD);
    body[0] = 0;
    body[1] = 0; /* no endpoint: managers bring the connections; but then no bytes of one */
    assert_int_equal(decode_body(body, 56, &got), TICKET_BAD);
    assert_int_equal(decode_body(body, 52, &got), TICKET_OK);
    assert_int_equal(got.n_endpoints, 0);
    body[1] = 2; /* one is missing */
    assert_int_equal(decode_body(body, 56, &got), TICKET_BAD);
    body[1] = 1;
    assert_int_equal(decode_body(body, 52, &got), TICKET_BAD);
    assert_int_equal(decode_body(body, 57, &got), TICKET_BAD); /* a byte over */
    assert_int_equal(decode_body(body, 55, &got), TICKET_BAD); /* a byte short */
    for (int i = 2; i < 4; i++) {
        body[i] = 1;
        assert_int_equal(decode_body(body, 56, &got), TICKET_BAD);
        body[i] = 0;
    }
    body[52] = 0; /* an empty endpoint */
    assert_int_equal(decode_body(body, 53, &got), TICKET_BAD);
    body[52] = 3;
    body[54] = 0; /* a NUL in it */
    assert_int_equal(decode_body(body, 56, &got), TICKET_BAD);
    body[54] = '\n';
    assert_int_equal(decode_body(body, 56, &got), TICKET_BAD);
    memset(body + 53, 'x', 255);
    body[52] = 127;
    assert_int_equal(decode_body(body, 53 + 127, &got), TICKET_OK);
    body[52] = 128;
    assert_int_equal(decode_body(body, 53 + 128, &got), TICKET_BAD);
    body[52] = 255;
    assert_int_equal(decode_body(body, 53 + 255, &got), TICKET_BAD);

    /* Seventeen endpoints. */
    body[1] = TICKET_ENDPOINTS_MAX + 1;
    for (size_t i = 0; i < TICKET_ENDPOINTS_MAX + 1; i++)
        memcpy(body + 52 + 2 * i, "\x01x", 2);
    assert_int_equal(decode_body(body, 52 + 2 * (TICKET_ENDPOINTS_MAX + 1), &got), TICKET_BAD);
    body[1] = TICKET_ENDPOINTS_MAX;
    assert_int_equal(decode_body(body, 52 + 2 * TICKET_ENDPOINTS_MAX, &got), TICKET_OK);
}

/* Longer than any ticket: refused, not written beyond anything. */
TEST(test_too_long)
{
    static const size_t sizes[] = {2800, 2820, 2821, 2822, 2823, 2824,  2830,
                                   4000, 4086, 4087, 4088, 5000, 100000};
    struct ticket got;

    for (size_t i = 0; i < ELEMENTS(sizes); i++) {
        char *text = malloc(sizes[i] + 10);

        strcpy(text, "vmferry1:");
        memset(text + 9, 'A', sizes[i]);
        text[9 + sizes[i]] = '\0';
        assert_int_equal(decode(text, &got), TICKET_BAD);
        free(text);
    }
}

TEST(test_random_texts)
{
    struct ticket ticket = sample(3), got;
    char good[TICKET_TEXT_MAX], text[TICKET_TEXT_MAX];
    size_t n_good;

    assert_int_equal(ticket_encode(&ticket, good), 0);
    n_good = strlen(good);
    for (int round = 0; round < 20000; round++) {
        size_t n = test_random() % 300;

        if (round % 2) {
            /* A good one with a few digits replaced, removed or doubled. */
            strcpy(text, good);
            n = 9 + test_random() % (n_good - 9);
            if (round % 4 == 1)
                memmove(text + n, text + n + 1, n_good - n);
            else
                text[n] = text[n] == 'x' ? 'y' : 'x';
        } else {
            strcpy(text, "vmferry1:");
            for (size_t i = 0; i < n; i++)
                text[9 + i] = round % 8 ? alphabet[test_random() % 64] : (char)(1 + test_random() % 255);
            text[9 + n] = '\0';
        }
        assert_int_not_equal(decode(text, &got), TICKET_OK);
    }
}

TEST(test_clear)
{
    struct ticket ticket = sample(1);
    static const uint8_t zero[MESSAGE_SECRET_SIZE];

    ticket_clear(&ticket);
    assert_memory_equal(ticket.secret, zero, sizeof(zero));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_round_trip),
        CASE(test_bounds),
        CASE(test_cut_anywhere),
        CASE(test_any_byte_changed),
        CASE(test_appended_or_moved),
        CASE(test_versions),
        CASE(test_not_canonical),
        CASE(test_bodies),
        CASE(test_too_long),
        CASE(test_random_texts),
        CASE(test_clear),
    };

    return cmocka_run_group_tests_name("ticket", tests, NULL, NULL);
}
