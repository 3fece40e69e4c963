/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Sealed records. The input is read twice: as what an authenticated peer seals, and as what happens to a
 * stream of good records on the way. Whatever that is, what comes out is how the good stream begins, and no
 * more.
 */

#include "fuzz.h"
#include "helper/carrier/record.h"

static const uint8_t secret[AEAD_KEY_MAX] = "any";
static const uint8_t iv[AEAD_NONCE] = "any, too";

static void key_init(struct record_key *key)
{
    MUST(record_key_set(key, &aead_gnutls, AEAD_AES_128_GCM, secret, iv, 0) == 0);
}

/* The input as an inner plaintext, sealed without a look at it. */
static void seal_it(const uint8_t *data, size_t size)
{
    const size_t whole = AEAD_ASIDE + size + AEAD_TAG;
    enum record_verdict verdict;
    struct record_key key = {0};
    uint8_t *record, *plain;
    size_t seen;

    if (size == 0 || size > RECORD_PLAIN_MAX + 2)
        return;
    key_init(&key);
    record = malloc(whole);
    plain = malloc(size);
    MUST(record && plain);
    memcpy(record, (uint8_t[]){23, 3, 3, (uint8_t)((whole - 5) >> 8), (uint8_t)(whole - 5)}, AEAD_ASIDE);
    MUST(key.aead->seal(key.key, iv, record, data, size - 1, data[size - 1], record + AEAD_ASIDE) == 0);
    verdict = record_look(record, whole, &seen);
    MUST(verdict == (size > 1 && size <= RECORD_PLAIN_MAX + 1 ? RECORD_DATA : RECORD_BAD));
    if (verdict == RECORD_DATA) {
        MUST(seen == whole);
        verdict = record_open(&key, record, whole, plain);
        MUST(verdict == (data[size - 1] == 23  ? RECORD_DATA
                         : data[size - 1] == 0 ? RECORD_BAD
                                               : RECORD_OTHER));
        MUST(memcmp(plain, data, size - 1) == 0 && key.number == (verdict == RECORD_DATA));
    }
    record_key_clear(&key);
    free(record);
    free(plain);
}

enum { RECORDS = 6, PLAIN = 9, STRIDE = PLAIN + (int)RECORD_OVERHEAD, STREAM = RECORDS * STRIDE };

/* Each four bytes of the input: what to do, where, how far, with what. Returns the size of the stream. */
static size_t mangle(uint8_t *stream, size_t size, const uint8_t *data, size_t n)
{
    for (; n >= 4 && size > 0; data += 4, n -= 4) {
        size_t at = data[1] % size, to = (data[2] | 1U) % size;

        switch (data[0] % 5) {
        case 0:
            stream[at] ^= data[3];
            break;
        case 1: /* cut out of the middle, or off the end */
            to = to < size - at ? to : size - at;
            memmove(stream + at, stream + at + to, size - at - to);
            size -= to;
            break;
        case 2: /* one record takes the place of another */
            if (size >= STREAM)
                memmove(stream + at % RECORDS * STRIDE, stream + data[2] % RECORDS * STRIDE, STRIDE);
            break;
        case 3: /* two change places */
            for (size_t i = 0; size >= STREAM && i < STRIDE; i++) {
                uint8_t *a = stream + at % RECORDS * STRIDE + i, *b = stream + to % RECORDS * STRIDE + i,
                        c = *a;

                *a = *b;
                *b = c;
            }
            break;
        default:
            stream[at] = data[3];
        }
    }
    return size;
}

static void change_them(const uint8_t *data, size_t n)
{
    uint8_t good[RECORDS * PLAIN], stream[STREAM], *copy;
    struct record_key seals = {0}, opens = {0};
    size_t size, at = 0, came = 0, whole;

    key_init(&seals);
    key_init(&opens);
    for (size_t i = 0; i < sizeof(good); i++)
        good[i] = (uint8_t)i;
    for (size_t i = 0; i < RECORDS; i++)
        MUST(record_seal(&seals, good + i * PLAIN, PLAIN, stream + i * STRIDE) == 0);
    size = mangle(stream, sizeof(stream), data, n);
    copy = fuzz_copy(stream, size);
    while (record_look(copy + at, size - at, &whole) == RECORD_DATA) {
        uint8_t plain[STREAM];

        MUST(at + whole <= size);
        if (record_open(&opens, copy + at, whole, plain) != RECORD_DATA)
            break;
        MUST(whole == STRIDE && came < sizeof(good) && memcmp(plain, good + came, PLAIN) == 0);
        came += PLAIN;
        at += whole;
    }
    MUST(opens.number == came / PLAIN);
    free(copy);
    record_key_clear(&seals);
    record_key_clear(&opens);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    seal_it(data, size);
    change_them(data, size);
    return 0;
}
