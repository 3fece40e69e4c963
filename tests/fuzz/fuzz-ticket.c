/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Tickets: an input that begins with 'b' is the inside of one, which gets a good MAC here, for that would
 * keep a fuzzer out for ever; any other is the text. What is decoded must encode to the same text.
 */

#include <gnutls/crypto.h>
#include <nettle/base64.h>

#include "broker/net/ticket.h"
#include "fuzz.h"

enum { HEAD = 52, BODY_MAX = 4000 };

static char *text_of_body(const uint8_t *data, size_t size)
{
    uint8_t body[BODY_MAX + 32];
    char *text = malloc(2 * sizeof(body));

    MUST(text);
    memcpy(body, data, size);
    MUST(gnutls_hmac_fast(GNUTLS_MAC_SHA256, body + 20, 32, body, size, body + size) >= 0);
    strcpy(text, "vmferry1:");
    base64_encode_raw(text + 9, size + 16, body);
    text[9 + BASE64_ENCODE_RAW_LENGTH(size + 16)] = '\0';
    for (char *c = text + 9; *c; c++)
        *c = *c == '+' ? '-' : *c == '/' ? '_' : *c == '=' ? '\0' : *c;
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool is_body = size > HEAD && size <= BODY_MAX && data[0] == 'b';
    char *text = is_body ? text_of_body(data + 1, size - 1) : fuzz_text(data, size);
    char again[TICKET_TEXT_MAX];
    struct ticket ticket;

    if (ticket_decode(text, &ticket) == TICKET_OK) {
        MUST(ticket.n_endpoints <= TICKET_ENDPOINTS_MAX); /* none: sockets are brought */
        for (uint32_t i = 0; i < ticket.n_endpoints; i++)
            MUST(ticket.endpoints[i][0] != '\0' && message_text_ok(ticket.endpoints[i], ADDRESS_TEXT_MAX));
        MUST(ticket_encode(&ticket, again) == 0);
        MUST(strcmp(again, text) == 0);
    }
    free(text);
    return 0;
}
