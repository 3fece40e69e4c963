/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Frames made by hand, and what the decoder says of them. */

#include "test-util.h"

#include "common/error.h"
#include "helper/protocol/frame.h"

static const char *why;

/* Decodes from memory of exactly that size, so that ASan and valgrind see one byte too many. */
static inline enum verdict decode(const uint8_t *buf, size_t size, struct frame *ret, size_t *ret_used)
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

static inline void expect_bad(const uint8_t *buf, size_t size, const char *want)
{
    struct frame frame;
    size_t used;

    assert_int_equal(decode(buf, size, &frame, &used), VERDICT_BAD);
    assert_string_equal(why, want);
}

static inline size_t header(uint8_t *buf, unsigned type, size_t payload, uint32_t channel)
{
    buf[0] = (uint8_t)type;
    buf[1] = (uint8_t)(type >> 8);
    buf[2] = (uint8_t)payload;
    buf[3] = (uint8_t)(payload >> 8);
    for (unsigned i = 0; i < 4; i++)
        buf[4 + i] = (uint8_t)(channel >> 8 * i);
    return FRAME_HEADER_SIZE + payload;
}
