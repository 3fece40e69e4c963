/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "common/error.h"
#include "helper/protocol.h"

static const char *why;

/* Decodes from memory of exactly that size, so that ASan and valgrind see one byte too many. */
static enum verdict decode(const uint8_t *buf, size_t size, struct frame *ret, size_t *ret_used)
{
    uint8_t *exact = malloc(size > 0 ? size : 1);
    enum verdict verdict;

    memcpy(exact, buf, size);
    memset(ret, 0xee, sizeof(*ret));
    *ret_used = 0;
    verdict = frame_decode(size > 0 ? exact : exact + 1, size, ret, ret_used, &why);
    free(exact);
    assert_true((verdict == VERDICT_BAD) == (why != NULL));
    return verdict;
}

static void expect_bad(const uint8_t *buf, size_t size, const char *want)
{
    struct frame frame;
    size_t used;

    assert_int_equal(decode(buf, size, &frame, &used), VERDICT_BAD);
    assert_string_equal(why, want);
}

static size_t header(uint8_t *buf, unsigned type, size_t payload, uint32_t channel)
{
    buf[0] = (uint8_t)type;
    buf[1] = (uint8_t)(type >> 8);
    buf[2] = (uint8_t)payload;
    buf[3] = (uint8_t)(payload >> 8);
    for (unsigned i = 0; i < 4; i++)
        buf[4 + i] = (uint8_t)(channel >> 8 * i);
    return FRAME_HEADER_SIZE + payload;
}

/* One good frame of each type, and some at their bounds. */
static size_t samples(struct frame ret[static 32])
{
    size_t n = 0;
    struct frame hello = {.type = FRAME_HELLO, .hello = {.version = 1, .max_channels = 256, .n_streams = 2}};
    struct frame text = {.type = FRAME_ABORT, .refusal = {.error = VF_ERROR_MAX_ - 1}};

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

        assert_in_range(size, FRAME_HEADER_SIZE, FRAME_MAX);
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

static const char *const good_names[] = {
    "a", "migrate", "disks", "a1", "z-9", "x--", "abcdefghijklmnopqrstuvwxyz01234"};
static const char *const bad_names[] = {
    "",         "A",
    "1",        "-",
    "-a",       "1a",
    "aB",       "a b",
    "a_b",      "a/b",
    "a.b",      "..",
    "a\n",      "a\x80",
    "\xc3\xa9", "a\x7f",
    "a%s",      "a,b",
    "a ",       " a",
    "MIGRATE",  "abcdefghijklmnopqrstuvwxyz012345", /* 32 */
};

TEST(test_stream_names)
{
    for (size_t i = 0; i < ELEMENTS(good_names); i++)
        assert_true(stream_name_ok(good_names[i]));
    for (size_t i = 0; i < ELEMENTS(bad_names); i++)
        assert_false(stream_name_ok(bad_names[i]));
}

/* A HELLO by hand, so that it can hold what the encoder would not write. */
static size_t hello_of(uint8_t *buf, uint32_t n_streams, const char *const *names, size_t n_names)
{
    size_t at = FRAME_HEADER_SIZE + 16;

    memset(buf, 0, FRAME_HEADER_SIZE + 16);
    buf[FRAME_HEADER_SIZE] = 1;
    buf[FRAME_HEADER_SIZE + 8] = 1;
    for (unsigned i = 0; i < 4; i++)
        buf[FRAME_HEADER_SIZE + 12 + i] = (uint8_t)(n_streams >> 8 * i);
    for (size_t i = 0; i < n_names; i++) {
        size_t n = strlen(names[i]);

        buf[at++] = (uint8_t)n;
        memcpy(buf + at, names[i], n);
        at += n;
    }
    return header(buf, FRAME_HELLO, at - FRAME_HEADER_SIZE, 0);
}

TEST(test_hello_with_bad_names)
{
    uint8_t buf[FRAME_MAX];

    for (size_t i = 0; i < ELEMENTS(bad_names); i++) {
        const char *const names[] = {"migrate", bad_names[i]};

        expect_bad(buf, hello_of(buf, 2, names, 2), "HELLO has an impossible stream name");
        expect_bad(buf, hello_of(buf, 1, &bad_names[i], 1), "HELLO has an impossible stream name");
    }
}

TEST(test_hello_with_nul_in_a_name)
{
    const char *const names[] = {"migrate"};
    uint8_t buf[FRAME_MAX];
    size_t size = hello_of(buf, 1, names, 1);

    buf[size - 3] = 0;
    expect_bad(buf, size, "HELLO has an impossible stream name");
}

TEST(test_hello_with_duplicates)
{
    const char *const names[] = {"disks", "migrate", "disks"};
    uint8_t buf[FRAME_MAX];

    expect_bad(buf, hello_of(buf, 3, names, 3), "HELLO names a stream twice");
}

TEST(test_hello_numbers)
{
    const char *const names[] = {"migrate", "disks"};
    static const uint32_t counts[] = {0, MESSAGE_STREAMS_MAX + 1, 256, UINT32_MAX};
    uint8_t buf[FRAME_MAX];
    size_t size;

    for (size_t i = 0; i < ELEMENTS(counts); i++)
        expect_bad(buf, hello_of(buf, counts[i], names, 2), "HELLO has an impossible number of streams");
    /* More or fewer names than it says. */
    expect_bad(buf, hello_of(buf, 3, names, 2), "HELLO has an impossible stream name");
    expect_bad(buf, hello_of(buf, 1, names, 2), "HELLO is too long");
    size = hello_of(buf, 2, names, 2);
    buf[size] = 0;
    expect_bad(buf, header(buf, FRAME_HELLO, size - FRAME_HEADER_SIZE + 1, 0), "HELLO is too long");
    /* A name longer than what is left. */
    buf[size - 6] = 6;
    expect_bad(buf, header(buf, FRAME_HELLO, size - FRAME_HEADER_SIZE, 0),
               "HELLO has an impossible stream name");
    buf[size - 6] = 255;
    expect_bad(buf, header(buf, FRAME_HELLO, size - FRAME_HEADER_SIZE, 0),
               "HELLO has an impossible stream name");

    size = hello_of(buf, 2, names, 2);
    buf[FRAME_HEADER_SIZE + 8] = 0;
    expect_bad(buf, size, "HELLO allows no channel");
    for (size_t n = 0; n < 16; n++)
        expect_bad(buf, header(buf, FRAME_HELLO, n, 0), "HELLO is too short");
}

static size_t refusal_of(uint8_t *buf, enum frame_type type, uint32_t error, const void *text, size_t n)
{
    for (unsigned i = 0; i < 4; i++)
        buf[FRAME_HEADER_SIZE + i] = (uint8_t)(error >> 8 * i);
    memcpy(buf + FRAME_HEADER_SIZE + 4, text, n);
    return header(buf, type, 4 + n, 0);
}

TEST(test_refusals)
{
    static const enum frame_type types[] = {FRAME_REFUSED, FRAME_ABORT};
    static const char *const texts[] = {
        "a\nb",
        "\x1b[2J",
        "\x7f",
        "tab\t",
        "\xff",
        "\xc3", /* controls, no UTF-8 */
        "\xc0\x80",
        "\xe0\x80\x80",
        "\xf0\x80\x80\x80",
        "\xc1\xbf", /* longer than need be */
        "\xed\xa0\x80",
        "\xf4\x90\x80\x80",
        "\xf8\x88\x80\x80\x80", /* surrogate, beyond Unicode */
        "\xc2\x85",
        "\xc2\x9b[31m",
        "\x80",
        "ab\xe2\x82", /* C1, CSI, cut */
    };
    uint8_t buf[FRAME_MAX + 8], many[FRAME_TEXT_MAX + 1];

    memset(many, 'a', sizeof(many));
    for (size_t t = 0; t < ELEMENTS(types); t++) {
        for (size_t i = 0; i < ELEMENTS(texts); i++)
            expect_bad(buf, refusal_of(buf, types[t], 1, texts[i], strlen(texts[i])),
                       "a refusal whose text is not printable");
        expect_bad(buf, refusal_of(buf, types[t], 1, "a\0b", 3), "a refusal whose text is not printable");
        expect_bad(buf, refusal_of(buf, types[t], 1, "ab\0", 3), "a refusal whose text is not printable");
        expect_bad(buf, refusal_of(buf, types[t], 0, "", 0), "a refusal with an unknown error");
        expect_bad(buf, refusal_of(buf, types[t], VF_ERROR_MAX_, "", 0), "a refusal with an unknown error");
        expect_bad(buf, refusal_of(buf, types[t], UINT32_MAX, "", 0), "a refusal with an unknown error");
        expect_bad(buf, refusal_of(buf, types[t], 1, many, sizeof(many)), "a refusal of impossible length");
        for (size_t n = 0; n < 4; n++)
            expect_bad(buf, header(buf, types[t], n, 0), "a refusal of impossible length");
    }
}

/* A text longer than the frame can hold is cut by the encoder, never written beyond. */
TEST(test_unterminated_text)
{
    struct frame frame = {.type = FRAME_ABORT, .refusal.error = 1}, got;
    uint8_t buf[FRAME_MAX];
    size_t used;

    memset(frame.refusal.text, 'x', sizeof(frame.refusal.text));
    assert_int_equal(decode(buf, frame_encode(&frame, buf), &got, &used), VERDICT_OK);
    assert_int_equal(strlen(got.refusal.text), FRAME_TEXT_MAX);
}

TEST(test_permitted)
{
    static const struct {
        enum frame_type type;
        bool before, source, destination;
    } table[] = {
        {FRAME_HELLO, true, true, true},    {FRAME_OPEN, false, true, false},
        {FRAME_OPENED, false, false, true}, {FRAME_REFUSED, false, true, true},
        {FRAME_ACK, false, true, true},     {FRAME_FIN, false, true, true},
        {FRAME_CLOSE, false, true, true},   {FRAME_ABORT, true, true, true},
        {FRAME_PING, false, true, true},    {FRAME_PONG, false, true, true},
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

TEST(test_preamble)
{
    static const uint64_t ids[] = {0, 1, 0x0123456789abcdef, UINT64_MAX};
    static const uint8_t want[PREAMBLE_SIZE] = {'V', 'M', 'F', 'E', 'R', 'R', 'Y', '\n', 1, 0, 2,
                                                0,   0,   0,   0,   0,   8,   7,   6,    5, 4, 3,
                                                2,   1,   0,   0,   0,   0,   0,   0,    0, 0};
    const struct preamble fixed = {PEER_CHANNEL, 0x0102030405060708};
    uint8_t buf[PREAMBLE_SIZE];
    struct preamble got;

    preamble_encode(&fixed, buf);
    assert_memory_equal(buf, want, sizeof(buf));
    for (size_t i = 0; i < ELEMENTS(ids); i++) {
        for (enum peer_kind kind = PEER_CONTROL; kind <= PEER_CHANNEL; kind++) {
            const struct preamble preamble = {kind, ids[i]};

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
    const struct preamble preamble = {PEER_CONTROL, 42};

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
        CASE(test_stream_names),
        CASE(test_hello_with_bad_names),
        CASE(test_hello_with_nul_in_a_name),
        CASE(test_hello_with_duplicates),
        CASE(test_hello_numbers),
        CASE(test_refusals),
        CASE(test_unterminated_text),
        CASE(test_permitted),
        CASE(test_one_spelling),
        CASE(test_preamble),
        CASE(test_preamble_changed),
        CASE(test_rejection),
        CASE(test_channel_hello),
    };

    return cmocka_run_group_tests_name("protocol", tests, NULL, NULL);
}
