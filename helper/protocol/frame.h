/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The peer protocol's records: bytes in, records and verdicts out. Pure: no I/O, no allocation, no state but
 * what the caller holds. docs/vmferry-protocol.7.rst is the description; all integers are little-endian.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/message.h"

#define PROTOCOL_VERSION 1

/* What to do about a peer that breaks the protocol; the end of a message. */
#define ADVICE "Is it a vmferry, of a version that goes with this one? Then report it as a bug."

/* What a parser says of bytes. */
enum verdict {
    VERDICT_OK,
    VERDICT_MORE,    /* good so far, but not whole */
    VERDICT_BAD,     /* nothing of ours */
    VERDICT_VERSION, /* ours, of another version */
};

/* ---- The preamble: what the connecting side says first, in clear ---- */

#define PREAMBLE_SIZE 32

struct preamble {
    enum peer_kind kind;
    uint64_t id;
};

void preamble_encode(const struct preamble *preamble, uint8_t buf[static PREAMBLE_SIZE]);

/* OK, BAD or VERSION; *ret is filled only for OK. */
enum verdict preamble_decode(const uint8_t buf[static PREAMBLE_SIZE], struct preamble *ret);

/*
 * ---- The rejection: what the gate answers to a preamble that leads nowhere, in clear ----
 * Nobody has proved anything by then, so it is a hint for people and changes nothing but the error's name.
 * Its first byte is 0, with which neither a TLS record nor a proof begins.
 */

#define REJECTION_SIZE 32

void rejection_encode(uint32_t error, uint8_t buf[static REJECTION_SIZE]);

/* OK with the error in *ret_error, or BAD. */
enum verdict rejection_decode(const uint8_t buf[static REJECTION_SIZE], uint32_t *ret_error);

/* ---- The channel hello: the first bytes on a proved channel connection, from each side ---- */

#define CHANNEL_HELLO_SIZE 16

struct channel_hello {
    uint32_t channel;
    uint64_t received; /* the offset from which this side wants the stream */
};

void channel_hello_encode(const struct channel_hello *hello, uint8_t buf[static CHANNEL_HELLO_SIZE]);
enum verdict channel_hello_decode(const uint8_t buf[static CHANNEL_HELLO_SIZE], struct channel_hello *ret);

/* ---- Control frames ---- */

#define FRAME_HEADER_SIZE 8 /* type u16, payload length u16, channel u32 */
#define FRAME_PAYLOAD_MAX 1024
#define FRAME_MAX         (FRAME_HEADER_SIZE + FRAME_PAYLOAD_MAX)
#define FRAME_TEXT_MAX    256 /* bytes of a text, without a NUL */

#define FRAME_CHANNEL_ALL UINT32_MAX /* in CLOSE: the migration as a whole */

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
    FRAME_MAX_TYPE_,
};

struct frame {
    enum frame_type type;
    uint32_t channel; /* 0 where the type has none */
    union {
        struct {
            uint32_t version;
            uint32_t features; /* none are defined yet; unknown bits are ignored */
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
