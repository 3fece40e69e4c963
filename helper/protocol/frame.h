/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Control frames: bytes in, frames and verdicts out. Pure: no I/O, no allocation, no state but what the
 * caller holds. docs/vmferry-protocol.7.rst is the description.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/message.h"
#include "helper/protocol/wire.h"

#define FRAME_HEADER_SIZE 8 /* type u16, payload length u16, channel u32 */
#define FRAME_PAYLOAD_MAX 1024
#define FRAME_MAX         (FRAME_HEADER_SIZE + FRAME_PAYLOAD_MAX)
#define FRAME_TEXT_MAX    256 /* bytes of a text, without a NUL */

#define FRAME_CHANNEL_ALL UINT32_MAX /* in CLOSE: the migration as a whole */

/* What a helper can do that those of before could not; bits, in HELLO. */
enum frame_features {
    FEATURE_OUTCOME = 1 << 0, /* takes OUTCOME */
    FEATURE_MARKS =
        1 << 1, /* source: makes marks in its preambles if they are read; destination: reads them */
};

enum frame_type {
    FRAME_HELLO = 1,
    FRAME_OPEN = 2,    /* source: this channel is a connection on that stream */
    FRAME_OPENED = 3,  /* destination: its QEMU is connected */
    FRAME_REFUSED = 4, /* there will be no such channel (any more), and why */
    FRAME_ACK = 5,     /* so many bytes of the channel are delivered to my QEMU */
    FRAME_FIN = 6,     /* my QEMU ended its direction of the channel after so many bytes */
    FRAME_CLOSE = 7,   /* both directions are ended and proved at my side */
    FRAME_ABORT = 8,   /* the migration ends now, and why */
    FRAME_PING = 9,
    FRAME_PONG = 10,
    FRAME_OUTCOME = 11, /* source: what its owner says that became of the VM */
    FRAME_MAX_TYPE_,
};

struct frame {
    enum frame_type type;
    uint32_t channel; /* 0 where the type has none */
    union {
        struct {
            uint32_t version;
            uint32_t features; /* enum frame_features; unknown bits are ignored */
            uint32_t max_channels;
            uint32_t n_streams;
            char streams[MESSAGE_STREAMS_MAX][MESSAGE_STREAM_MAX];
        } hello;
        uint32_t stream; /* OPEN: index into the source's HELLO */
        uint64_t offset; /* ACK, FIN: bytes */
        uint64_t cookie; /* PING, PONG */
        struct {
            uint32_t error; /* enum vf_error, not none */
            char text[FRAME_TEXT_MAX + 1];
        } refusal; /* REFUSED, ABORT */
        struct outcome outcome;
    };
};

/* Returns the bytes written. */
size_t frame_encode(const struct frame *frame, uint8_t buf[static FRAME_MAX]);

/*
 * The first frame in buf. OK with *ret and *ret_used; MORE; or BAD with *ret_why saying what is wrong with
 * it, for a log line (static text).
 */
enum verdict frame_decode(const uint8_t *buf, size_t size, struct frame *ret, size_t *ret_used,
                          const char **ret_why);

/*
 * Whether a frame of this type may come from a peer in this role, before or after its HELLO (or, for anything
 * later, after the end): the one table of what is permitted when. NULL where it may, else what to say.
 */
const char *frame_not_permitted(enum frame_type type, enum message_role from, bool greeted);
