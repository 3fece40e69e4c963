/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "protocol-rig.h"

/* One good frame of each type, and some at their bounds. */
static size_t samples(struct frame ret[static 32])
{
    size_t n = 0;
    struct frame hello = {.type = FRAME_HELLO, .hello = {.version = 1, .max_channels = 256, .n_streams = 2}};
    struct frame text = {.type = FRAME_ABORT, .refusal = {.error = VF_ERROR_MAX_ - 1}};
    struct frame outcome = {.type = FRAME_OUTCOME, .outcome = {.outcome = VF_OUTCOME_MAX_ - 1}};

    strcpy(hello.hello.streams[0], "migrate");
    strcpy(hello.hello.streams[1], "disks");
    ret[n++] = hello;
    hello.hello.version = UINT32_MAX;
    hello.hello.features = UINT32_MAX;
    hello.hello.max_channels = UINT32_MAX;
    hello.hello.n_streams = MESSAGE_STREAMS_MAX;
    for (int i = 0; i < MESSAGE_STREAMS_MAX; i++) {
        memset(hello.hello.streams[i], 'z', MESSAGE_STREAM_MAX - 1);
        hello.hello.streams[i][30] = (char)('a' + i);
        hello.hello.streams[i][31] = '\0';
    }
    ret[n++] = hello;
    ret[n++] = (struct frame){.type = FRAME_OPEN, .channel = 0, .stream = 0};
    ret[n++] =
        (struct frame){.type = FRAME_OPEN, .channel = UINT32_MAX - 1, .stream = MESSAGE_STREAMS_MAX - 1};
    ret[n++] = (struct frame){.type = FRAME_OPENED, .channel = 0x01020304};
    ret[n++] = (struct frame){.type = FRAME_ACK, .channel = 1, .offset = 0};
    ret[n++] = (struct frame){.type = FRAME_ACK, .channel = 2, .offset = UINT64_MAX};
    ret[n++] = (struct frame){.type = FRAME_FIN, .channel = 3, .offset = 0x0102030405060708};
    ret[n++] = (struct frame){.type = FRAME_CLOSE, .channel = 4};
    ret[n++] = (struct frame){.type = FRAME_CLOSE, .channel = FRAME_CHANNEL_ALL};
    ret[n++] = (struct frame){.type = FRAME_PING, .cookie = UINT64_MAX};
    ret[n++] = (struct frame){.type = FRAME_PONG, .cookie = 1};
    ret[n++] = text;
    memset(text.refusal.text, 'x', FRAME_TEXT_MAX);
    ret[n++] = text;
    text.type = FRAME_REFUSED;
    text.channel = 9;
    text.refusal.error = 1;
    strcpy(text.refusal.text, "Grüße, 日本, 😀");
    ret[n++] = text;
    ret[n++] = (struct frame){.type = FRAME_OUTCOME, .outcome = {.outcome = VF_OUTCOME_MOVED}};
    outcome.outcome.downtime = UINT64_MAX;
    outcome.outcome.total = 1;
    memset(outcome.outcome.host, 'h', OUTCOME_HOST_MAX - 1);
    memset(outcome.outcome.run_state, 's', OUTCOME_RUN_STATE_MAX - 1);
    memset(outcome.outcome.reason, 'r', OUTCOME_REASON_MAX - 1);
    ret[n++] = outcome;
    return n;
}

TEST(test_round_trip)
{
    struct frame frames[32];
    size_t n = samples(frames);
    bool seen[FRAME_MAX_TYPE_] = {0};

    for (size_t i = 0; i < n; i++) {
        uint8_t buf[FRAME_MAX], again[FRAME_MAX];
        size_t size = frame_encode(&frames[i], buf), used;
        struct frame got;

        assert_between(size, FRAME_HEADER_SIZE, FRAME_MAX);
        assert_int_equal(decode(buf, size, &got, &used), VERDICT_OK);
        assert_int_equal(used, size);
        assert_int_equal(got.type, frames[i].type);
        assert_int_equal(got.channel, frames[i].channel);
        switch (got.type) {
        case FRAME_HELLO:
            assert_memory_equal(&got.hello, &frames[i].hello, sizeof(got.hello));
            break;
        case FRAME_OPEN:
            assert_int_equal(got.stream, frames[i].stream);
            break;
        case FRAME_ACK:
        case FRAME_FIN:
            assert_true(got.offset == frames[i].offset);
            break;
        case FRAME_PING:
        case FRAME_PONG:
            assert_true(got.cookie == frames[i].cookie);
            break;
        case FRAME_REFUSED:
        case FRAME_ABORT:
            assert_int_equal(got.refusal.error, frames[i].refusal.error);
            assert_string_equal(got.refusal.text, frames[i].refusal.text);
            break;
        case FRAME_OUTCOME:
            assert_memory_equal(&got.outcome, &frames[i].outcome, sizeof(got.outcome));
            break;
        default:
            break;
        }
        assert_int_equal(frame_encode(&got, again), size);
        assert_memory_equal(again, buf, size);
        seen[got.type] = true;
    }
    for (int type = FRAME_HELLO; type < FRAME_MAX_TYPE_; type++)
        assert_true(seen[type]);
}

/* The bytes themselves, once: that both ends of ours agree proves nothing about the order of bytes. */
TEST(test_wire_format)
{
    const struct frame fin = {.type = FRAME_FIN, .channel = 0x01020304, .offset = 0x1112131415161718};
    static const uint8_t want[] = {6, 0, 8, 0, 4, 3, 2, 1, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11};
    uint8_t buf[FRAME_MAX];

    assert_int_equal(frame_encode(&fin, buf), sizeof(want));
    assert_memory_equal(buf, want, sizeof(want));
}

TEST(test_cut_anywhere_is_more)
{
    struct frame frames[32], got;
    size_t n = samples(frames), used;

    for (size_t i = 0; i < n; i++) {
        uint8_t buf[FRAME_MAX];
        size_t size = frame_encode(&frames[i], buf);

        for (size_t cut = 0; cut < size; cut++)
            assert_int_equal(decode(buf, cut, &got, &used), VERDICT_MORE);
    }
}

TEST(test_one_after_another)
{
    struct frame frames[32], got;
    size_t n = samples(frames), size = 0, at = 0, used;
    uint8_t *buf = malloc(32 * FRAME_MAX);

    for (size_t i = 0; i < n; i++)
        size += frame_encode(&frames[i], buf + size);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(decode(buf + at, size - at, &got, &used), VERDICT_OK);
        assert_int_equal(got.type, frames[i].type);
        at += used;
    }
    assert_int_equal(at, size);
    free(buf);
}

TEST(test_unknown_type)
{
    static const unsigned types[] = {0, FRAME_MAX_TYPE_, 255, 256, 257, UINT16_MAX};

    for (size_t i = 0; i < ELEMENTS(types); i++) {
        uint8_t buf[FRAME_MAX] = {0};

        /* The header tells: nobody waits for the payload. */
        header(buf, types[i], 100, 0);
        expect_bad(buf, FRAME_HEADER_SIZE, "unknown frame type");
    }
}

TEST(test_too_long)
{
    for (unsigned type = 1; type < FRAME_MAX_TYPE_; type++) {
        uint8_t buf[FRAME_HEADER_SIZE] = {0};

        header(buf, type, FRAME_PAYLOAD_MAX + 1, 0);
        expect_bad(buf, sizeof(buf), "a frame longer than the limit");
        header(buf, type, UINT16_MAX, 0);
        expect_bad(buf, sizeof(buf), "a frame longer than the limit");
    }
}

/* Every length of payload but its own is wrong. */
TEST(test_length)
{
    static const struct {
        enum frame_type type;
        size_t size;
        const char *why;
    } fixed[] = {
        {FRAME_OPEN, 4, "OPEN of impossible length"},
        {FRAME_OPENED, 0, "OPENED or CLOSE of impossible length"},
        {FRAME_CLOSE, 0, "OPENED or CLOSE of impossible length"},
        {FRAME_ACK, 8, "ACK or FIN of impossible length"},
        {FRAME_FIN, 8, "ACK or FIN of impossible length"},
        {FRAME_PING, 8, "PING or PONG of impossible length"},
        {FRAME_PONG, 8, "PING or PONG of impossible length"},
    };

    for (size_t i = 0; i < ELEMENTS(fixed); i++) {
        for (size_t n = 0; n <= FRAME_PAYLOAD_MAX; n++) {
            uint8_t buf[FRAME_MAX] = {0};
            size_t size = header(buf, fixed[i].type, n, 0), used;
            struct frame frame;

            if (n == fixed[i].size)
                assert_int_equal(decode(buf, size, &frame, &used), VERDICT_OK);
            else
                expect_bad(buf, size, fixed[i].why);
        }
    }
}

TEST(test_channel_where_none_belongs)
{
    struct frame frames[32];
    size_t n = samples(frames);

    for (size_t i = 0; i < n; i++) {
        uint8_t buf[FRAME_MAX];

        if (frames[i].type != FRAME_HELLO && frames[i].type != FRAME_ABORT && frames[i].type != FRAME_PING &&
            frames[i].type != FRAME_PONG)
            continue;
        frames[i].channel = i % 2 ? 1 : UINT32_MAX;
        expect_bad(buf, frame_encode(&frames[i], buf), "a channel number where none belongs");
    }
}

TEST(test_all_channels_only_in_close)
{
    struct frame frames[32];
    size_t n = samples(frames);

    for (size_t i = 0; i < n; i++) {
        uint8_t buf[FRAME_MAX];

        if (frames[i].type != FRAME_OPEN && frames[i].type != FRAME_OPENED &&
            frames[i].type != FRAME_REFUSED && frames[i].type != FRAME_ACK && frames[i].type != FRAME_FIN)
            continue;
        frames[i].channel = FRAME_CHANNEL_ALL;
        expect_bad(buf, frame_encode(&frames[i], buf), "an impossible channel number");
    }
}

TEST(test_open_of_impossible_stream)
{
    static const uint32_t streams[] = {MESSAGE_STREAMS_MAX, 255, 256, UINT32_MAX};

    for (size_t i = 0; i < ELEMENTS(streams); i++) {
        const struct frame frame = {.type = FRAME_OPEN, .stream = streams[i]};
        uint8_t buf[FRAME_MAX];

        expect_bad(buf, frame_encode(&frame, buf), "OPEN of an impossible stream");
    }
}

/* What its parts can be wrong in. */
TEST(test_impossible_outcomes)
{
    const struct frame frame = {.type = FRAME_OUTCOME, .outcome = {.outcome = VF_OUTCOME_LOST, .host = "ab"}};
    static const struct {
        size_t at;
        uint8_t value;
        const char *why;
    } wrong[] = {
        {0, VF_OUTCOME_NONE, "an impossible OUTCOME"},
        {0, VF_OUTCOME_MAX_, "an impossible OUTCOME"},
        {20, 1, "OUTCOME with texts of impossible length"},
        {20, OUTCOME_HOST_MAX, "OUTCOME with texts of impossible length"},
        {21, 0, "OUTCOME with texts of impossible length"},
        {22, '\n', "an impossible OUTCOME"},
        {24, 1, "OUTCOME with texts of impossible length"},
    };
    uint8_t buf[FRAME_MAX];
    size_t size = frame_encode(&frame, buf);

    for (size_t i = 0; i < ELEMENTS(wrong); i++) {
        uint8_t bad[FRAME_MAX];

        memcpy(bad, buf, size);
        bad[FRAME_HEADER_SIZE + wrong[i].at] = wrong[i].value;
        expect_bad(bad, size, wrong[i].why);
    }
    header(buf, FRAME_OUTCOME, 19, 0);
    expect_bad(buf, size, "OUTCOME is too short");
}

TEST(test_permitted)
{
    static const struct {
        enum frame_type type;
        bool before, source, destination;
    } table[] = {
        {FRAME_HELLO, true, true, true},     {FRAME_OPEN, false, true, false},
        {FRAME_OPENED, false, false, true},  {FRAME_REFUSED, false, true, true},
        {FRAME_ACK, false, true, true},      {FRAME_FIN, false, true, true},
        {FRAME_CLOSE, false, true, true},    {FRAME_ABORT, true, true, true},
        {FRAME_PING, false, true, true},     {FRAME_PONG, false, true, true},
        {FRAME_OUTCOME, false, true, false},
    };

    assert_int_equal(ELEMENTS(table), FRAME_MAX_TYPE_ - 1);
    for (size_t i = 0; i < ELEMENTS(table); i++) {
        enum frame_type type = table[i].type;

        assert_int_equal(type, i + 1);
        for (int greeted = 0; greeted < 2; greeted++) {
            bool when = greeted ? type != FRAME_HELLO : table[i].before;

            assert_true((frame_not_permitted(type, ROLE_OUTGOING, greeted) == NULL) ==
                        (when && table[i].source));
            assert_true((frame_not_permitted(type, ROLE_INCOMING, greeted) == NULL) ==
                        (when && table[i].destination));
        }
    }
    assert_string_equal(frame_not_permitted(FRAME_HELLO, ROLE_OUTGOING, true), "a second HELLO");
    assert_string_equal(frame_not_permitted(FRAME_PING, ROLE_INCOMING, false), "a frame before HELLO");
    assert_string_equal(frame_not_permitted(FRAME_OPEN, ROLE_INCOMING, true),
                        "a frame that only the other side may send");
}

/* What is decoded encodes to the same bytes: nothing has two spellings, whatever it was made from. */
TEST(test_one_spelling)
{
    struct frame frames[32];
    size_t n = samples(frames), good = 0;

    for (int round = 0; round < 40000; round++) {
        uint8_t buf[FRAME_MAX] = {0}, again[FRAME_MAX];
        size_t size = frame_encode(&frames[test_random() % n], buf), used;
        struct frame got;

        for (uint32_t i = test_random() % 3; i < 3; i++)
            buf[test_random() % size] = (uint8_t)test_random();
        if (decode(buf, size, &got, &used) != VERDICT_OK)
            continue;
        assert_true(used <= size);
        assert_int_equal(frame_encode(&got, again), used);
        assert_memory_equal(again, buf, used);
        good++;
    }
    assert_true(good > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_round_trip),
        CASE(test_wire_format),
        CASE(test_cut_anywhere_is_more),
        CASE(test_one_after_another),
        CASE(test_unknown_type),
        CASE(test_too_long),
        CASE(test_length),
        CASE(test_channel_where_none_belongs),
        CASE(test_all_channels_only_in_close),
        CASE(test_open_of_impossible_stream),
        CASE(test_impossible_outcomes),
        CASE(test_permitted),
        CASE(test_one_spelling),
    };

    return cmocka_run_group_tests_name("protocol", tests, NULL, NULL);
}
