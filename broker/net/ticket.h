/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Tickets: what PrepareIncoming gives and StartOutgoing takes. Text: "vmferry1:" and base64url (RFC 4648, 5,
 * without padding) of
 *
 *     security u8, endpoints u8, zero u16, id u64, expiry u64 (µs since 1970), secret[32],
 *     each endpoint: length u8, text; then a MAC[16]
 *
 * little-endian. The MAC is the beginning of HMAC-SHA-256 with the secret over all before it: against slips
 * of the hand, for the holder of a ticket holds the secret. Pure; total over any text.
 */

#include <stdint.h>

#include "common/address.h"
#include "common/message.h"

#define TICKET_ENDPOINTS_MAX 16
#define TICKET_TEXT_MAX      4096 /* bytes, the NUL included */

struct ticket {
    uint64_t id;
    uint64_t expiry; /* µs, CLOCK_REALTIME of the destination */
    enum message_security security;
    uint8_t secret[MESSAGE_SECRET_SIZE];
    uint32_t n_endpoints; /* 0…TICKET_ENDPOINTS_MAX; 0: managers bring the peer connections */
    char endpoints[TICKET_ENDPOINTS_MAX][ADDRESS_TEXT_MAX];
};

enum ticket_verdict {
    TICKET_OK,
    TICKET_BAD,     /* no ticket, cut or changed */
    TICKET_VERSION, /* a ticket of another version */
};

/* 0, or a negative errno (no crypto). */
int ticket_encode(const struct ticket *ticket, char ret[static TICKET_TEXT_MAX]);

enum ticket_verdict ticket_decode(const char *text, struct ticket *ret);

/* Overwrites the secret. */
void ticket_clear(struct ticket *ticket);
