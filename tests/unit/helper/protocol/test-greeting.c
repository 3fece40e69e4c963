/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "common/error.h"
#include "helper/protocol/greeting.h"

/* What opens a connection: the preamble, the rejection that may answer it, the channel hello. */

TEST(test_preamble)
{
    static const uint64_t ids[] = {0, 1, 0x0123456789abcdef, UINT64_MAX};
    static const uint8_t want[PREAMBLE_SIZE] = {'V', 'M', 'F', 'E', 'R', 'R', 'Y', '\n', 1, 0, 2,
                                                0,   0,   0,   0,   0,   8,   7,   6,    5, 4, 3,
                                                2,   1,   0,   0,   0,   0,   0,   0,    0, 0};
    struct preamble fixed = {.kind = PEER_CHANNEL, .id = 0x0102030405060708};
    uint8_t buf[PREAMBLE_SIZE];
    struct preamble got;

    preamble_encode(&fixed, buf);
    assert_memory_equal(buf, want, sizeof(buf));
    fixed.mark = (struct message_mark){.number = 0x01020304, .mac = 0x1112131415161718};
    preamble_encode(&fixed, buf);
    assert_memory_equal(buf + 12, "\4\3\2\1", 4);
    assert_memory_equal(buf + 24, "\x18\x17\x16\x15\x14\x13\x12\x11", 8);
    assert_int_equal(preamble_decode(buf, &got), VERDICT_OK);
    assert_int_equal(got.mark.number, fixed.mark.number);
    assert_true(got.mark.mac == fixed.mark.mac);
    for (size_t i = 0; i < ELEMENTS(ids); i++) {
        for (enum peer_kind kind = PEER_CONTROL; kind <= PEER_CHANNEL; kind++) {
            const struct preamble preamble = {.kind = kind, .id = ids[i]};

            preamble_encode(&preamble, buf);
            assert_int_equal(preamble_decode(buf, &got), VERDICT_OK);
            assert_int_equal(got.kind, kind);
            assert_true(got.id == ids[i]);
        }
    }
}

/* Any byte changed: another id, another kind that exists, another version, or bad. */
TEST(test_preamble_changed)
{
    const struct preamble preamble = {.kind = PEER_CONTROL, .id = 42};

    for (size_t at = 0; at < PREAMBLE_SIZE; at++) {
        for (unsigned v = 1; v < 256; v++) {
            uint8_t buf[PREAMBLE_SIZE];
            struct preamble got = {0};
            enum verdict verdict;

            preamble_encode(&preamble, buf);
            buf[at] ^= (uint8_t)v;
            verdict = preamble_decode(buf, &got);
            if (at >= 16 && at < 24) {
                assert_int_equal(verdict, VERDICT_OK);
                assert_true(got.id != 42);
            } else if (at >= 12 && at < 16) {
                assert_int_equal(verdict, VERDICT_OK);
                assert_true(got.mark.number != 0); /* and a MAC that is to be looked at */
            } else if (at == 10 && (buf[at] == PEER_CHANNEL || buf[at] == PEER_RESUME)) {
                assert_int_equal(verdict, VERDICT_OK);
                assert_int_equal(got.kind, buf[at]);
            } else {
                assert_int_equal(verdict, at == 8 || at == 9 ? VERDICT_VERSION : VERDICT_BAD);
                assert_true(got.kind == 0 && got.id == 0); /* filled only for OK */
            }
        }
    }
}

TEST(test_rejection)
{
    uint8_t buf[REJECTION_SIZE];
    uint32_t error;

    for (uint32_t i = 1; i < VF_ERROR_MAX_; i++) {
        rejection_encode(i, buf);
        assert_int_equal(buf[0], 0); /* neither TLS nor a proof */
        error = 0;
        assert_int_equal(rejection_decode(buf, &error), VERDICT_OK);
        assert_int_equal(error, i);
        buf[8]++; /* another version says so by this, too */
        assert_int_equal(rejection_decode(buf, &error), VERDICT_OK);
        for (int at = 0; at < 8; at++) {
            buf[at] ^= 0x20;
            assert_int_equal(rejection_decode(buf, &error), VERDICT_BAD);
            buf[at] ^= 0x20;
        }
    }
    rejection_encode(VF_ERROR_NONE, buf);
    assert_int_equal(rejection_decode(buf, &error), VERDICT_BAD);
    rejection_encode(VF_ERROR_MAX_, buf);
    assert_int_equal(rejection_decode(buf, &error), VERDICT_BAD);
    rejection_encode(UINT32_MAX, buf);
    assert_int_equal(rejection_decode(buf, &error), VERDICT_BAD);
}

TEST(test_channel_hello)
{
    static const struct channel_hello hellos[] = {
        {0, 0}, {1, 2}, {UINT32_MAX, UINT64_MAX}, {0x01020304, 1ULL << 40}};
    uint8_t buf[CHANNEL_HELLO_SIZE];
    struct channel_hello got;

    for (size_t i = 0; i < ELEMENTS(hellos); i++) {
        memset(buf, 0xee, sizeof(buf));
        channel_hello_encode(&hellos[i], buf);
        assert_int_equal(channel_hello_decode(buf, &got), VERDICT_OK);
        assert_int_equal(got.channel, hellos[i].channel);
        assert_true(got.received == hellos[i].received);
        for (int at = 4; at < 8; at++) {
            buf[at] = 1;
            assert_int_equal(channel_hello_decode(buf, &got), VERDICT_BAD);
            buf[at] = 0;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_preamble),
        CASE(test_preamble_changed),
        CASE(test_rejection),
        CASE(test_channel_hello),
    };

    return cmocka_run_group_tests_name("protocol-greetings", tests, NULL, NULL);
}
