/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "aead-rig.h"
#include "test-util.h"

#include <pthread.h>
#include <sys/mman.h>

#include "helper/carrier/record.h"

/* Each case with every library, and with one sealing for another. */

static const uint8_t secret[AEAD_KEY_MAX] = "thirty-two bytes of a secret....";
static const uint8_t iv[AEAD_NONCE] = "twelve bytes";

struct pair {
    struct record_key seals, opens;
};

static struct pair pair_of(const struct aead *seals, const struct aead *opens, enum aead_cipher cipher,
                           uint64_t number)
{
    struct pair pair = {0};

    assert_int_equal(record_key_set(&pair.seals, seals, cipher, secret, iv, number), 0);
    assert_int_equal(record_key_set(&pair.opens, opens, cipher, secret, iv, number), 0);
    return pair;
}

static void pair_clear(struct pair *pair)
{
    record_key_clear(&pair->seals);
    record_key_clear(&pair->opens);
    assert_null(pair->seals.key);
}

/* Runs the case for all pairs of libraries and all ciphers that both have. */
static void with_each(void (*run)(struct pair *pair))
{
    aeads_chosen(); /* initializes them */
    for (size_t i = 0; aead_all[i]; i++)
        for (size_t j = 0; aead_all[j]; j++)
            for (enum aead_cipher cipher = 0; cipher < AEAD_CIPHERS_; cipher++) {
                struct pair pair;

                if (!aead_has(aead_all[i], cipher) || !aead_has(aead_all[j], cipher))
                    continue;
                pair = pair_of(aead_all[i], aead_all[j], cipher, 0);
                run(&pair);
                pair_clear(&pair);
            }
}

/* Exactly as much memory as record_open() may write to, so that a sanitizer sees a byte beyond. */
static enum record_verdict open_it(struct record_key *key, const uint8_t *record, size_t size,
                                   uint8_t *ret_plain)
{
    uint8_t *copy = malloc(size), *plain = malloc(size - RECORD_OVERHEAD + 1);
    uint64_t number = key->number;
    enum record_verdict verdict;

    memcpy(copy, record, size);
    verdict = record_open(key, copy, size, plain);
    if (verdict == RECORD_DATA && ret_plain)
        memcpy(ret_plain, plain, size - RECORD_OVERHEAD);
    assert_int_equal(key->number, verdict == RECORD_DATA ? number + 1 : number);
    assert_memory_equal(copy, record, size);
    free(copy);
    free(plain);
    return verdict;
}

/* What an authenticated peer that is not vmferry could send: any inner plaintext. */
static size_t seal_inner(const struct record_key *key, const uint8_t *inner, size_t size, uint8_t *out)
{
    uint8_t nonce[AEAD_NONCE];

    memcpy(nonce, key->iv, sizeof(nonce));
    nonce[11] ^= (uint8_t)key->number;
    out[0] = 23;
    out[1] = out[2] = 3;
    out[3] = (uint8_t)((size + AEAD_TAG) >> 8);
    out[4] = (uint8_t)(size + AEAD_TAG);
    assert_int_equal(key->aead->seal(key->key, nonce, out, inner, size - 1, inner[size - 1], out + 5), 0);
    return size + AEAD_TAG + 5;
}

/* ---- RFC 8448, section 3: the records of application data and the alerts after them ---- */

static const uint8_t client_key[] = {0x17, 0x42, 0x2d, 0xda, 0x59, 0x6e, 0xd5, 0xd9,
                                     0xac, 0xd8, 0x90, 0xe3, 0xc6, 0x3f, 0x50, 0x51};
static const uint8_t client_iv[] = {0x5b, 0x78, 0x92, 0x3d, 0xee, 0x08, 0x57, 0x90, 0x33, 0xe5, 0x23, 0xd9};
static const uint8_t client_data[] = {0x17, 0x03, 0x03, 0x00, 0x43, 0xa2, 0x3f, 0x70, 0x54, 0xb6, 0x2c, 0x94,
                                      0xd0, 0xaf, 0xfa, 0xfe, 0x82, 0x28, 0xba, 0x55, 0xcb, 0xef, 0xac, 0xea,
                                      0x42, 0xf9, 0x14, 0xaa, 0x66, 0xbc, 0xab, 0x3f, 0x2b, 0x98, 0x19, 0xa8,
                                      0xa5, 0xb4, 0x6b, 0x39, 0x5b, 0xd5, 0x4a, 0x9a, 0x20, 0x44, 0x1e, 0x2b,
                                      0x62, 0x97, 0x4e, 0x1f, 0x5a, 0x62, 0x92, 0xa2, 0x97, 0x70, 0x14, 0xbd,
                                      0x1e, 0x3d, 0xea, 0xe6, 0x3a, 0xee, 0xbb, 0x21, 0x69, 0x49, 0x15, 0xe4};
static const uint8_t client_alert[] = {0x17, 0x03, 0x03, 0x00, 0x13, 0xc9, 0x87, 0x27,
                                       0x60, 0x65, 0x56, 0x66, 0xb7, 0x4d, 0x7f, 0xf1,
                                       0x15, 0x3e, 0xfd, 0x6d, 0xb6, 0xd0, 0xb0, 0xe3};
static const uint8_t server_key[] = {0x9f, 0x02, 0x28, 0x3b, 0x6c, 0x9c, 0x07, 0xef,
                                     0xc2, 0x6b, 0xb9, 0xf2, 0xac, 0x92, 0xe3, 0x56};
static const uint8_t server_iv[] = {0xcf, 0x78, 0x2b, 0x88, 0xdd, 0x83, 0x54, 0x9a, 0xad, 0xf1, 0xe9, 0x84};
static const uint8_t server_data[] = {0x17, 0x03, 0x03, 0x00, 0x43, 0x2e, 0x93, 0x7e, 0x11, 0xef, 0x4a, 0xc7,
                                      0x40, 0xe5, 0x38, 0xad, 0x36, 0x00, 0x5f, 0xc4, 0xa4, 0x69, 0x32, 0xfc,
                                      0x32, 0x25, 0xd0, 0x5f, 0x82, 0xaa, 0x1b, 0x36, 0xe3, 0x0e, 0xfa, 0xf9,
                                      0x7d, 0x90, 0xe6, 0xdf, 0xfc, 0x60, 0x2d, 0xcb, 0x50, 0x1a, 0x59, 0xa8,
                                      0xfc, 0xc4, 0x9c, 0x4b, 0xf2, 0xe5, 0xf0, 0xa2, 0x1c, 0x00, 0x47, 0xc2,
                                      0xab, 0xf3, 0x32, 0x54, 0x0d, 0xd0, 0x32, 0xe1, 0x67, 0xc2, 0x95, 0x5d};
static const uint8_t server_alert[] = {0x17, 0x03, 0x03, 0x00, 0x13, 0xb5, 0x8f, 0xd6,
                                       0x71, 0x66, 0xeb, 0xf5, 0x99, 0xd2, 0x47, 0x20,
                                       0xcf, 0xbe, 0x7e, 0xfa, 0x7a, 0x88, 0x64, 0xa9};

TEST(test_rfc8448)
{
    static const struct {
        const uint8_t *key, *iv, *data, *alert;
        uint64_t number; /* the server has sent a NewSessionTicket before */
    } ends[] = {
        {client_key, client_iv, client_data, client_alert, 0},
        {server_key, server_iv, server_data, server_alert, 1},
    };
    uint8_t plain[50], out[50 + RECORD_OVERHEAD], back[50];

    for (size_t i = 0; i < sizeof(plain); i++)
        plain[i] = (uint8_t)i;
    aeads_chosen();
    for (size_t i = 0; aead_all[i]; i++)
        for (size_t end = 0; aead_has(aead_all[i], AEAD_AES_128_GCM) && end < ELEMENTS(ends); end++) {
            struct record_key key = {0};

            assert_int_equal(record_key_set(&key, aead_all[i], AEAD_AES_128_GCM, ends[end].key, ends[end].iv,
                                            ends[end].number),
                             0);
            assert_int_equal(record_seal(&key, plain, sizeof(plain), out), 0);
            assert_memory_equal(out, ends[end].data, sizeof(out));
            assert_int_equal(key.number, ends[end].number + 1);
            key.number = ends[end].number;
            assert_int_equal(open_it(&key, ends[end].data, sizeof(client_data), back), RECORD_DATA);
            assert_memory_equal(back, plain, sizeof(plain));
            assert_int_equal(open_it(&key, ends[end].alert, sizeof(client_alert), NULL), RECORD_OTHER);
            record_key_clear(&key);
        }
}

/* ---- Sizes ---- */

/* Memory behind which there is none: no sanitizer sees what the assembler of the libraries reads and writes.
 */
static uint8_t *walled(int slot, size_t size)
{
    enum { ROOM = 1 << 16 };
    static uint8_t *ends[3];

    if (!ends[slot]) {
        uint8_t *all = mmap(NULL, 2 * ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        assert_int_equal(mprotect(all, ROOM, PROT_READ | PROT_WRITE), 0);
        ends[slot] = all + ROOM;
    }
    return ends[slot] - size;
}

static void one_size(struct pair *pair, size_t size)
{
    uint8_t *plain = walled(0, size), *out = walled(1, size + RECORD_OVERHEAD), *back = walled(2, size + 1);
    size_t whole = 0;

    test_fill(plain, size, size);
    assert_int_equal(record_seal(&pair->seals, plain, size, out), 0);
    assert_int_equal(record_look(out, size + RECORD_OVERHEAD, &whole), RECORD_DATA);
    assert_int_equal(whole, size + RECORD_OVERHEAD);
    assert_int_equal(record_look(out, size + RECORD_OVERHEAD - 1, &whole), RECORD_CUT);
    assert_int_equal(record_open(&pair->opens, out, whole, back), RECORD_DATA);
    assert_memory_equal(back, plain, size);
}

/* The code for AVX-512 takes up to 48 blocks, 768 bytes, at once. */
static void sizes(struct pair *pair)
{
    static const size_t cases[] = {2047, 2048, 2049, 4096, 16383, 16384};

    for (size_t size = 1; size <= 2 * 768 + 1; size += test_in_valgrind() ? 5 : 1)
        one_size(pair, size);
    for (size_t i = 0; i < ELEMENTS(cases); i++)
        one_size(pair, cases[i]);
}

TEST(test_sizes)
{
    with_each(sizes);
}

TEST(test_headers)
{
    static const struct {
        uint8_t header[5];
        size_t size;
        enum record_verdict verdict;
    } cases[] = {
        {{23, 3, 3, 0, 18}, 0, RECORD_CUT},
        {{23, 3, 3, 0, 18}, 4, RECORD_CUT},
        {{23, 3, 3, 0, 18}, 5, RECORD_CUT},
        {{22}, 1, RECORD_BAD},
        {{23, 2}, 2, RECORD_BAD},
        {{23, 3, 4}, 3, RECORD_BAD},
        {{20, 3, 3, 0, 1}, 5, RECORD_BAD},
        {{21, 3, 3, 0, 2}, 5, RECORD_BAD},
        {{23, 3, 3, 0, 0}, 5, RECORD_BAD},
        {{23, 3, 3, 0, 17}, 5, RECORD_BAD}, /* nothing in it */
        {{23, 3, 3, 0x40, 0x11}, 5, RECORD_CUT},
        {{23, 3, 3, 0x40, 0x12}, 5, RECORD_BAD}, /* oversized */
        {{23, 3, 3, 0xff, 0xff}, 5, RECORD_BAD},
    };

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        uint8_t *copy = malloc(cases[i].size + !cases[i].size);
        size_t whole;

        memcpy(copy, cases[i].header, cases[i].size);
        assert_int_equal(record_look(copy, cases[i].size, &whole), cases[i].verdict);
        free(copy);
    }
}

/* ---- What was changed on the way ---- */

static void flipped(struct pair *pair)
{
    uint8_t plain[40], out[40 + RECORD_OVERHEAD];
    size_t whole;

    test_fill(plain, sizeof(plain), 0);
    assert_int_equal(record_seal(&pair->seals, plain, sizeof(plain), out), 0);
    for (size_t bit = 0; bit < 8 * sizeof(out); bit++) {
        out[bit / 8] ^= (uint8_t)(1 << bit % 8);
        /* The wrong length is either no length, or the whole record is not there, or fails. */
        if (record_look(out, sizeof(out), &whole) == RECORD_DATA)
            assert_int_equal(open_it(&pair->opens, out, whole, NULL), RECORD_BAD);
        else
            assert_true(bit / 8 < AEAD_ASIDE);
        out[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_int_equal(open_it(&pair->opens, out, sizeof(out), NULL), RECORD_DATA);
}

TEST(test_flipped)
{
    with_each(flipped);
}

static void order(struct pair *pair)
{
    uint8_t out[3][1 + RECORD_OVERHEAD];

    for (int i = 0; i < 3; i++)
        assert_int_equal(record_seal(&pair->seals, (const uint8_t *)"x", 1, out[i]), 0);
    assert_int_equal(open_it(&pair->opens, out[1], sizeof(out[1]), NULL), RECORD_BAD); /* before its turn */
    assert_int_equal(open_it(&pair->opens, out[0], sizeof(out[0]), NULL), RECORD_DATA);
    assert_int_equal(open_it(&pair->opens, out[0], sizeof(out[0]), NULL), RECORD_BAD); /* again */
    assert_int_equal(open_it(&pair->opens, out[2], sizeof(out[2]), NULL), RECORD_BAD); /* one was left out */
    assert_int_equal(open_it(&pair->opens, out[1], sizeof(out[1]), NULL), RECORD_DATA);
    assert_int_equal(open_it(&pair->opens, out[2], sizeof(out[2]), NULL), RECORD_DATA);
}

TEST(test_order)
{
    with_each(order);
}

/* ---- What only the holder of the key can make ---- */

static void inner(struct pair *pair)
{
    static const struct {
        uint8_t inner[4];
        size_t size;
        enum record_verdict verdict;
    } cases[] = {
        {{'x', 23}, 2, RECORD_DATA},       {{'x', 23, 0}, 3, RECORD_BAD}, /* padded */
        {{23, 0, 0}, 3, RECORD_BAD},                                      /* padded, nothing in it */
        {{0, 0, 0, 0}, 4, RECORD_BAD},                                    /* nothing but padding */
        {{1, 0, 21}, 3, RECORD_OTHER},                                    /* close_notify */
        {{1, 0, 21, 0}, 4, RECORD_BAD},                                   /* padded */
        {{24, 0, 0, 22}, 4, RECORD_OTHER},                                /* a part of a KeyUpdate */
        {{1, 20}, 2, RECORD_OTHER},        {{1, 255}, 2, RECORD_OTHER},
    };
    uint8_t out[4 + RECORD_OVERHEAD];

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        size_t size = seal_inner(&pair->opens, cases[i].inner, cases[i].size, out), whole;

        assert_int_equal(record_look(out, size, &whole), RECORD_DATA);
        assert_int_equal(open_it(&pair->opens, out, size, NULL), cases[i].verdict);
    }
}

TEST(test_inner)
{
    with_each(inner);
}

/* ---- Nonces ---- */

static uint8_t (*nonces)[AEAD_NONCE];
static size_t n_nonces;

static int keep_nonce(void *key, const uint8_t nonce[static AEAD_NONCE],
                      const uint8_t aside[static AEAD_ASIDE], const uint8_t *plain, size_t size, uint8_t last,
                      uint8_t *out)
{
    (void)key, (void)aside, (void)plain, (void)size, (void)last, (void)out;
    memcpy(nonces[n_nonces++], nonce, AEAD_NONCE);
    return n_nonces % 5 == 0 ? -EIO : 0; /* a number that has failed has served as well */
}

static void *no_key(enum aead_cipher cipher, const uint8_t *key)
{
    (void)cipher, (void)key;
    return (void *)(uintptr_t)1;
}

static void free_no_key(void *key)
{
    (void)key;
}

static int compare(const void *a, const void *b)
{
    return memcmp(a, b, AEAD_NONCE);
}

TEST(test_nonces)
{
    static const struct aead counting = {.new_key = no_key, .free_key = free_no_key, .seal = keep_nonce};
    const size_t n = test_in_valgrind() ? 1 << 16 : 1 << 20;
    uint8_t out[1 + RECORD_OVERHEAD];
    struct record_key key = {0};

    nonces = malloc((n + 1) * sizeof(*nonces));
    n_nonces = 0;
    assert_int_equal(record_key_set(&key, &counting, AEAD_AES_128_GCM, secret, iv, RECORDS_MAX - n), 0);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(record_seal(&key, out, 1, out), (i + 1) % 5 == 0 ? -EIO : 0);
    assert_int_equal(n_nonces, n);
    /* The key is worn out: it seals no more. */
    assert_int_equal(record_seal(&key, out, 1, out), -ENOKEY);
    assert_int_equal(n_nonces, n);
    qsort(nonces, n, sizeof(*nonces), compare);
    for (size_t i = 1; i < n; i++)
        assert_true(compare(nonces[i - 1], nonces[i]) < 0);
    record_key_clear(&key);
    free(nonces);
}

/* A key that could not be had, or was cleared, neither seals nor opens. */
TEST(test_no_key)
{
    uint8_t out[1 + RECORD_OVERHEAD] = {23, 3, 3, 0, 18};
    struct record_key key = {0};

    assert_int_equal(record_seal(&key, out, 1, out), -ENOKEY);
    assert_int_equal(open_it(&key, out, sizeof(out), NULL), RECORD_BAD);
}

/* ---- The choice ---- */

TEST(test_choice)
{
    const struct aead_choice *choice = aeads_chosen();

    for (enum aead_cipher cipher = 0; cipher < AEAD_CIPHERS_; cipher++) {
        size_t i = 0;

        while (aead_all[i] && aead_all[i] != choice->fastest[cipher])
            i++;
        assert_non_null(aead_all[i]);
        assert_true(aead_has(choice->fastest[cipher], cipher));
        for (i = 0; aead_all[i]; i++)
            assert_true(aead_has(aead_all[i], cipher) ||
                        (strcmp(aead_all[i]->name, "IPsec-MB") == 0 &&
                         (cipher != AEAD_AES_128_GCM || choice->preferred != AEAD_AES_128_GCM)));
    }
}

/* ---- Threads: each has its own keys ---- */

static void *in_thread(void *p)
{
    static const uint8_t plain[4000];
    uint8_t out[sizeof(plain) + RECORD_OVERHEAD], back[sizeof(plain) + 1];
    struct pair *pair = p;

    for (int i = 0; i < 100; i++)
        if (record_seal(&pair->seals, plain, sizeof(plain), out) < 0 ||
            record_open(&pair->opens, out, sizeof(out), back) != RECORD_DATA)
            return pair;
    return NULL;
}

TEST(test_threads)
{
    struct pair pairs[4];
    pthread_t threads[4];
    void *wrong;

    aeads_chosen();
    for (size_t i = 0; aead_all[i]; i++) {
        if (!aead_has(aead_all[i], AEAD_AES_128_GCM))
            continue;
        for (size_t j = 0; j < ELEMENTS(pairs); j++) {
            pairs[j] = pair_of(aead_all[i], aead_all[0], AEAD_AES_128_GCM, j << 20);
            assert_int_equal(pthread_create(&threads[j], NULL, in_thread, &pairs[j]), 0);
        }
        for (size_t j = 0; j < ELEMENTS(pairs); j++) {
            assert_int_equal(pthread_join(threads[j], &wrong), 0);
            assert_null(wrong);
            pair_clear(&pairs[j]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_rfc8448), CASE(test_sizes),  CASE(test_headers), CASE(test_flipped), CASE(test_order),
        CASE(test_inner),   CASE(test_nonces), CASE(test_no_key),  CASE(test_choice),  CASE(test_threads),
    };

    return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
