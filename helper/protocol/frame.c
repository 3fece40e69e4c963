/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/protocol/frame.h"

#include <string.h>

#include "common/error.h"

static size_t put_hello(const struct frame *frame, uint8_t *p)
{
    size_t at = 16;

    put32(p, frame->hello.version);
    put32(p + 4, frame->hello.features);
    put32(p + 8, frame->hello.max_channels);
    put32(p + 12, frame->hello.n_streams);
    for (uint32_t i = 0; i < frame->hello.n_streams; i++) {
        size_t n = strlen(frame->hello.streams[i]);

        p[at++] = (uint8_t)n;
        memcpy(p + at, frame->hello.streams[i], n);
        at += n;
    }
    return at;
}

static size_t put_refusal(const struct frame *frame, uint8_t *p)
{
    size_t n = strnlen(frame->refusal.text, FRAME_TEXT_MAX);

    put32(p, frame->refusal.error);
    memcpy(p + 4, frame->refusal.text, n);
    return 4 + n;
}

/* A byte that says how long it is, then the text. */
static size_t put_text(uint8_t *p, const char *text, size_t size)
{
    size_t n = strnlen(text, size - 1);

    p[0] = (uint8_t)n;
    memcpy(p + 1, text, n);
    return 1 + n;
}

static size_t put_outcome(const struct outcome *outcome, uint8_t *p)
{
    size_t at = 20;

    put32(p, outcome->outcome);
    put64(p + 4, outcome->downtime);
    put64(p + 12, outcome->total);
    at += put_text(p + at, outcome->host, sizeof(outcome->host));
    at += put_text(p + at, outcome->run_state, sizeof(outcome->run_state));
    return at + put_text(p + at, outcome->reason, sizeof(outcome->reason));
}

size_t frame_encode(const struct frame *frame, uint8_t buf[static FRAME_MAX])
{
    uint8_t *p = buf + FRAME_HEADER_SIZE;
    size_t n = 0;

    switch (frame->type) {
    case FRAME_HELLO:
        n = put_hello(frame, p);
        break;
    case FRAME_OPEN:
        put32(p, frame->stream);
        n = 4;
        break;
    case FRAME_ACK:
    case FRAME_FIN:
        put64(p, frame->offset);
        n = 8;
        break;
    case FRAME_PING:
    case FRAME_PONG:
        put64(p, frame->cookie);
        n = 8;
        break;
    case FRAME_REFUSED:
    case FRAME_ABORT:
        n = put_refusal(frame, p);
        break;
    case FRAME_OUTCOME:
        n = put_outcome(&frame->outcome, p);
        break;
    case FRAME_OPENED:
    case FRAME_CLOSE:
    case FRAME_MAX_TYPE_:
        break;
    }
    put16(buf, (uint16_t)frame->type);
    put16(buf + 2, (uint16_t)n);
    put32(buf + 4, frame->channel);
    return FRAME_HEADER_SIZE + n;
}

/* NULL where the payload is a good HELLO, else what is wrong. */
static const char *get_hello(const uint8_t *p, size_t n, struct frame *ret)
{
    size_t at = 16;

    if (n < at)
        return "HELLO is too short";
    ret->hello.version = get32(p);
    ret->hello.features = get32(p + 4);
    ret->hello.max_channels = get32(p + 8);
    ret->hello.n_streams = get32(p + 12);
    if (ret->hello.max_channels == 0)
        return "HELLO allows no channel";
    if (ret->hello.n_streams == 0 || ret->hello.n_streams > MESSAGE_STREAMS_MAX)
        return "HELLO has an impossible number of streams";
    for (uint32_t i = 0; i < ret->hello.n_streams; i++) {
        size_t len = at < n ? p[at++] : 0;

        if (len == 0 || len >= MESSAGE_STREAM_MAX || len > n - at)
            return "HELLO has an impossible stream name";
        memcpy(ret->hello.streams[i], p + at, len);
        ret->hello.streams[i][len] = '\0';
        if (strlen(ret->hello.streams[i]) != len || !stream_name_ok(ret->hello.streams[i]))
            return "HELLO has an impossible stream name";
        for (uint32_t j = 0; j < i; j++)
            if (strcmp(ret->hello.streams[i], ret->hello.streams[j]) == 0)
                return "HELLO names a stream twice";
        at += len;
    }
    return at == n ? NULL : "HELLO is too long";
}

static const char *get_refusal(const uint8_t *p, size_t n, struct frame *ret)
{
    if (n < 4 || n > 4 + FRAME_TEXT_MAX)
        return "a refusal of impossible length";
    ret->refusal.error = get32(p);
    if (ret->refusal.error == VF_ERROR_NONE || ret->refusal.error >= VF_ERROR_MAX_)
        return "a refusal with an unknown error";
    memcpy(ret->refusal.text, p + 4, n - 4);
    ret->refusal.text[n - 4] = '\0';
    if (strlen(ret->refusal.text) != n - 4 || !message_text_ok(ret->refusal.text, n - 4 + 1))
        return "a refusal whose text is not printable";
    return NULL;
}

/* The text that is next, if it has room; *at moves behind it. */
static bool get_text(const uint8_t *p, size_t n, size_t *at, char *ret, size_t size)
{
    size_t len = *at < n ? p[(*at)++] : SIZE_MAX;

    if (len >= size || len > n - *at || memchr(p + *at, 0, len))
        return false;
    memcpy(ret, p + *at, len);
    *at += len;
    return true;
}

static const char *get_outcome(const uint8_t *p, size_t n, struct outcome *ret)
{
    size_t at = 20;

    if (n < at)
        return "OUTCOME is too short";
    ret->outcome = get32(p);
    ret->downtime = get64(p + 4);
    ret->total = get64(p + 12);
    if (!get_text(p, n, &at, ret->host, sizeof(ret->host)) ||
        !get_text(p, n, &at, ret->run_state, sizeof(ret->run_state)) ||
        !get_text(p, n, &at, ret->reason, sizeof(ret->reason)) || at != n)
        return "OUTCOME with texts of impossible length";
    return message_outcome_ok(ret) ? NULL : "an impossible OUTCOME";
}

static const char *get_payload(const uint8_t *p, size_t n, struct frame *ret)
{
    switch (ret->type) {
    case FRAME_HELLO:
        return get_hello(p, n, ret);
    case FRAME_REFUSED:
    case FRAME_ABORT:
        return get_refusal(p, n, ret);
    case FRAME_OPEN:
        if (n != 4)
            return "OPEN of impossible length";
        ret->stream = get32(p);
        return ret->stream < MESSAGE_STREAMS_MAX ? NULL : "OPEN of an impossible stream";
    case FRAME_ACK:
    case FRAME_FIN:
        if (n != 8)
            return "ACK or FIN of impossible length";
        ret->offset = get64(p);
        return NULL;
    case FRAME_PING:
    case FRAME_PONG:
        if (n != 8)
            return "PING or PONG of impossible length";
        ret->cookie = get64(p);
        return NULL;
    case FRAME_OUTCOME:
        return get_outcome(p, n, &ret->outcome);
    case FRAME_OPENED:
    case FRAME_CLOSE:
        return n == 0 ? NULL : "OPENED or CLOSE of impossible length";
    case FRAME_MAX_TYPE_:
        break;
    }
    return "unknown frame type";
}

static bool has_channel(enum frame_type type)
{
    switch (type) {
    case FRAME_OPEN:
    case FRAME_OPENED:
    case FRAME_REFUSED:
    case FRAME_ACK:
    case FRAME_FIN:
    case FRAME_CLOSE:
        return true;
    default:
        return false;
    }
}

enum verdict frame_decode(const uint8_t *buf, size_t size, struct frame *ret, size_t *ret_used,
                          const char **ret_why)
{
    uint16_t type, n;

    *ret_why = NULL;
    if (size < FRAME_HEADER_SIZE)
        return VERDICT_MORE;
    type = get16(buf);
    n = get16(buf + 2);
    /* Said as soon as the header tells, so that the caller need not wait for a payload that is wrong anyway.
     */
    if (type == 0 || type >= FRAME_MAX_TYPE_)
        *ret_why = "unknown frame type";
    else if (n > FRAME_PAYLOAD_MAX)
        *ret_why = "a frame longer than the limit";
    if (*ret_why)
        return VERDICT_BAD;
    if (size - FRAME_HEADER_SIZE < n)
        return VERDICT_MORE;

    memset(ret, 0, sizeof(*ret));
    ret->type = type;
    ret->channel = get32(buf + 4);
    if (!has_channel(type) && ret->channel != 0)
        *ret_why = "a channel number where none belongs";
    else if (ret->channel == FRAME_CHANNEL_ALL && type != FRAME_CLOSE)
        *ret_why = "an impossible channel number";
    else
        *ret_why = get_payload(buf + FRAME_HEADER_SIZE, n, ret);
    if (*ret_why)
        return VERDICT_BAD;
    *ret_used = FRAME_HEADER_SIZE + (size_t)n;
    return VERDICT_OK;
}

const char *frame_not_permitted(enum frame_type type, enum message_role from, bool greeted)
{
    enum { BEFORE = 1, AFTER = 2, SOURCE = 4, DESTINATION = 8, BOTH = SOURCE | DESTINATION };
    static const uint8_t permitted[FRAME_MAX_TYPE_] = {
        [FRAME_HELLO] = BEFORE | BOTH,        [FRAME_OPEN] = AFTER | SOURCE,
        [FRAME_OPENED] = AFTER | DESTINATION, [FRAME_REFUSED] = AFTER | BOTH,
        [FRAME_ACK] = AFTER | BOTH,           [FRAME_FIN] = AFTER | BOTH,
        [FRAME_CLOSE] = AFTER | BOTH,         [FRAME_ABORT] = BEFORE | AFTER | BOTH,
        [FRAME_PING] = AFTER | BOTH,          [FRAME_PONG] = AFTER | BOTH,
        [FRAME_OUTCOME] = AFTER | SOURCE,
    };

    if (!(permitted[type] & (greeted ? AFTER : BEFORE)))
        return greeted ? "a second HELLO" : "a frame before HELLO";
    if (!(permitted[type] & (from == ROLE_OUTGOING ? SOURCE : DESTINATION)))
        return "a frame that only the other side may send";
    return NULL;
}
