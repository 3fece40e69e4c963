/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "broker/migration/record.h"
#include "common/error.h"

/* Too large for a stack that is checked. */
static struct record sample, got;
static uint8_t data[RECORD_SIZE_MAX];

static void fill_text(char *field, size_t size, char c)
{
    memset(field, c, size - 1);
    field[size - 1] = '\0';
}

/* Every field at its largest. */
static void fill_sample(void)
{
    memset(&sample, 0, sizeof(sample));
    sample = (struct record){
        .id = 0xfedcba9876543210,
        .role = ROLE_OUTGOING,
        .security = SECURITY_PLAIN,
        .state = STATE_FINISHED,
        .result = VF_RESULT_CANCELLED,
        .error = VF_ERROR_CANCELLED,
        .uid = 1000,
        .owner_uid = 1001,
        .owner_gid = UINT32_MAX,
        .owner_group = 1,
        .expects_peers = 1,
        .farewell = 1,
        .ending = VF_ERROR_TIMED_OUT,
        .own_paths = 0xffff,
        .started = UINT64_MAX,
        .finished = 1767225600000000,
        .gives_up = 1767225600000001,
        .deadline = 3,
        .expire = 4,
        .resume_timeout = 5,
        .bandwidth_limit = 6,
        .expected_bytes = 7,
        .n_streams = MESSAGE_STREAMS_MAX,
        .n_paths = MESSAGE_STREAMS_MAX,
        .n_endpoints = TICKET_ENDPOINTS_MAX,
        .sent = 8,
        .received = 9,
        .round_trip = 10,
        .reconnects = 11,
        .n_channels = STATS_CHANNELS_MAX,
        .phase = 7,
        .pass = 12,
        .memory_total = 13,
        .memory_remaining = 14,
        .dirty_rate = 15,
        .expected_downtime = 16,
        .disk_total = 21,
        .disk_remaining = 22,
        .fraction = 17,
        .rate = 18,
        .remaining = 19,
        .outcome = VF_OUTCOME_UNKNOWN,
        .told_by = 2,
        .downtime = 20,
        .total = UINT64_MAX,
    };
    fill_text(sample.host, sizeof(sample.host), 'h');
    fill_text(sample.run_state, sizeof(sample.run_state), 's');
    fill_text(sample.reason, sizeof(sample.reason), 'r');
    fill_text(sample.vm, sizeof(sample.vm), 'v');
    fill_text(sample.message, sizeof(sample.message), 'm');
    fill_text(sample.peer, sizeof(sample.peer), 'p');
    fill_text(sample.ending_text, sizeof(sample.ending_text), 'e');
    fill_text(sample.directory, sizeof(sample.directory), '/');
    fill_text(sample.client_id, sizeof(sample.client_id), 'c');
    fill_text(sample.tied_to, sizeof(sample.tied_to), ':');
    fill_text(sample.unit, sizeof(sample.unit), 'u');
    fill_text(sample.ticket, sizeof(sample.ticket), 't');
    for (size_t i = 0; i < MESSAGE_STREAMS_MAX; i++) {
        fill_text(sample.streams[i], sizeof(sample.streams[i]), (char)('a' + i));
        fill_text(sample.paths[i], sizeof(sample.paths[i]), '/');
        fill_text(sample.endpoints[i], sizeof(sample.endpoints[i]), (char)('A' + i));
    }
    for (uint32_t i = 0; i < STATS_CHANNELS_MAX; i++)
        sample.channels[i] =
            (struct stats_channel){i, (uint16_t)(i % 16), (uint16_t)(i % 5), i * 3, UINT64_MAX - i};
}

/* Decodes from memory of exactly that size. */
static enum record_verdict decode(size_t size, const char **ret_why)
{
    uint8_t *exact = malloc(size > 0 ? size : 1);
    enum record_verdict verdict;

    memcpy(exact, data, size);
    memset(&got, 0xee, sizeof(got));
    verdict = record_decode(exact, size, &got, ret_why);
    free(exact);
    assert_true((verdict == RECORD_OK) == (*ret_why == NULL));
    return verdict;
}

static void expect(enum record_verdict verdict, size_t size, const char *words)
{
    const char *why;

    assert_int_equal(decode(size, &why), verdict);
    if (words)
        assert_string_equal(why, words);
}

TEST(test_round_trip)
{
    size_t n;

    fill_sample();
    n = record_encode(&sample, data);
    assert_between(n, 1, RECORD_SIZE_MAX);
    expect(RECORD_OK, n, NULL);
    assert_memory_equal(&got, &sample, sizeof(sample));
}

TEST(test_smallest)
{
    size_t n;

    memset(&sample, 0, sizeof(sample));
    sample.id = 1;
    strcpy(sample.vm, "v");
    sample.n_streams = sample.n_paths = 1;
    strcpy(sample.streams[0], "migrate");
    n = record_encode(&sample, data);
    expect(RECORD_OK, n, NULL);
    assert_memory_equal(&got, &sample, sizeof(sample));
}

/* Written once by version 1, byte for byte: it must be read for ever. */
TEST(test_version_1)
{
    static const uint8_t written[] = {
        'v', 'm', 'f', 's', 't',  'a',  't',  'e',  1,    0,    1,    0,    122, 0, 0, 0, /* header */
        1,   0,   8,   0,   0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01,               /* id */
        2,   0,   4,   0,   1,    0,    0,    0,                                          /* role */
        4,   0,   4,   0,   2,    0,    0,    0,                                          /* state */
        7,   0,   4,   0,   0xe8, 3,    0,    0,                                          /* uid */
        16,  0,   8,   0,   0,    0,    0,    1,    0,    0,    0,    0,                  /* deadline */
        21,  0,   4,   0,   'w',  'e',  'b',  '1',                                        /* vm */
        30,  0,   7,   0,   'm',  'i',  'g',  'r',  'a',  't',  'e',                      /* stream */
        31,  0,   2,   0,   '/',  'm',                                                    /* path */
        32,  0,   7,   0,   't',  'c',  'p',  ':',  'a',  ':',  '1',                      /* endpoint */
        19,  0,   8,   0,   5,    0,    0,    0,    0,    0,    0,    0, /* bandwidth limit */
        11,  0,   4,   0,   1,    0,    0,    0,                         /* expects peers */
    };

    memcpy(data, written, sizeof(written));
    data[12] = sizeof(written);
    expect(RECORD_OK, sizeof(written), NULL);
    assert_true(got.id == 0x0123456789abcdef && got.role == ROLE_OUTGOING && got.state == STATE_ACTIVE);
    assert_true(got.uid == 1000 && got.deadline == 1 << 24 && got.bandwidth_limit == 5 && got.expects_peers);
    assert_string_equal(got.vm, "web1");
    assert_string_equal(got.streams[0], "migrate");
    assert_string_equal(got.paths[0], "/m");
    assert_string_equal(got.endpoints[0], "tcp:a:1");
    /* What was not written is nothing. */
    assert_true(got.n_channels == 0 && got.message[0] == '\0' && got.farewell == 0);
}

/* Adds a field at the end; returns the new size. */
static size_t add_field(size_t n, uint16_t tag, const void *value, uint16_t size)
{
    data[n] = (uint8_t)tag;
    data[n + 1] = (uint8_t)(tag >> 8);
    data[n + 2] = (uint8_t)size;
    data[n + 3] = (uint8_t)(size >> 8);
    memcpy(data + n + 4, value, size);
    n += 4U + size;
    for (size_t i = 0; i < 4; i++)
        data[12 + i] = (uint8_t)(n >> (8 * i));
    return n;
}

static size_t encode_smallest(void)
{
    test_smallest(NULL);
    return record_encode(&sample, data);
}

TEST(test_newer_versions)
{
    size_t n = encode_smallest();

    /* Of a newer one that can be read: what it adds is passed over. */
    data[8] = 9;
    n = add_field(n, 0xfffe, "something new", 13);
    n = add_field(n, 200, "", 0);
    expect(RECORD_OK, n, NULL);
    assert_memory_equal(&got, &sample, sizeof(sample));
    /* Of one that cannot. */
    data[10] = 2;
    expect(RECORD_TOO_NEW, n, "it is of a newer version");
}

TEST(test_bad_fields)
{
    static const struct {
        uint16_t tag;
        const char *value;
        uint16_t size;
        const char *why;
    } cases[] = {
        {22, "a\0b", 3, "a text has a NUL in it"},        {22, "a\nb", 3, "a text cannot be printed"},
        {22, "\xff", 1, "a text cannot be printed"},      {21, "twice", 5, "a field is there too often"},
        {30, "Upper", 5, "its streams have no paths"},    {31, "/second", 7, "its streams have no paths"},
        {1, "12345678", 8, "a field is there too often"}, {37, "short", 5, "a channel is invalid"},
        {25, "relative", 8, "a path is not absolute"},
    };
    size_t n;

    for (size_t i = 0; i < ELEMENTS(cases); i++) {
        n = add_field(encode_smallest(), cases[i].tag, cases[i].value, cases[i].size);
        expect(RECORD_BAD, n, cases[i].why);
    }
}

/* Each thing that no migration can be. */
TEST(test_impossible)
{
#define CASE_OF(member, value, why)                            \
    do {                                                       \
        encode_smallest();                                     \
        sample.member = (value);                               \
        expect(RECORD_BAD, record_encode(&sample, data), why); \
    } while (0)
    CASE_OF(id, 0, "its identity is invalid");
    CASE_OF(role, 2, "its identity is invalid");
    CASE_OF(security, 2, "its identity is invalid");
    CASE_OF(state, STATE_MAX_, "its state is invalid");
    CASE_OF(error, VF_ERROR_MAX_, "its state is invalid");
    CASE_OF(ending, VF_ERROR_MAX_, "its state is invalid");
    CASE_OF(result, VF_RESULT_DONE, "its result is not that of its state");
    CASE_OF(state, STATE_FINISHED, "its result is not that of its state");
    CASE_OF(owner_group, 2, "a boolean is out of range");
    CASE_OF(expects_peers, 2, "a boolean is out of range");
    CASE_OF(farewell, 2, "a boolean is out of range");
    CASE_OF(vm[0], '\0', "it has no VM");
    CASE_OF(n_streams, 0, "its streams have no paths");
    CASE_OF(streams[0][0], '-', "a stream's name is invalid");
    CASE_OF(paths[0][0], 'x', "a path is not absolute");
#undef CASE_OF
}

/* Every beginning of a record, and each byte of it changed: never more than a verdict. */
TEST(test_cut_and_changed)
{
    const char *why;
    size_t n;

    fill_sample();
    n = record_encode(&sample, data);
    for (size_t size = 0; size < n; size += size < 600 ? 1 : 97)
        assert_int_equal(decode(size, &why), RECORD_BAD);
    for (size_t i = 0; i < n; i += i < 600 ? 1 : 31) {
        data[i] ^= 0x55;
        decode(n, &why);
        data[i] ^= 0x55;
    }
    expect(RECORD_OK, n, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_round_trip), CASE(test_smallest),   CASE(test_version_1),       CASE(test_newer_versions),
        CASE(test_bad_fields), CASE(test_impossible), CASE(test_cut_and_changed),
    };

    return cmocka_run_group_tests_name("state", tests, NULL, NULL);
}
