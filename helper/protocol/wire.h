/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What all records of the peer protocol have in common: its version, a parser's verdict, little-endian
 * integers. */

#include <endian.h>
#include <stdint.h>
#include <string.h>

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

static inline void put16(uint8_t *p, uint16_t v)
{
    v = htole16(v);
    memcpy(p, &v, sizeof(v));
}

static inline void put32(uint8_t *p, uint32_t v)
{
    v = htole32(v);
    memcpy(p, &v, sizeof(v));
}

static inline void put64(uint8_t *p, uint64_t v)
{
    v = htole64(v);
    memcpy(p, &v, sizeof(v));
}

static inline uint16_t get16(const uint8_t *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof(v));
    return le16toh(v);
}

static inline uint32_t get32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return le32toh(v);
}

static inline uint64_t get64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return le64toh(v);
}
