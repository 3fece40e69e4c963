/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/net/ticket.h"

#include <ctype.h>
#include <endian.h>
#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <nettle/base64.h>
#include <stdio.h>
#include <string.h>

#include "common/cleanup.h"

enum { HEAD = 52, MAC = 16, BODY_MAX = HEAD + TICKET_ENDPOINTS_MAX * ADDRESS_TEXT_MAX + MAC };

_Static_assert(sizeof("vmferry1:") + BASE64_ENCODE_RAW_LENGTH(BODY_MAX) <= TICKET_TEXT_MAX,
               "a ticket fits its text");

static const char prefix[] = "vmferry1:";

void ticket_clear(struct ticket *ticket)
{
    explicit_bzero(ticket->secret, sizeof(ticket->secret));
}

static int mac_of(const uint8_t *body, size_t size, const uint8_t secret[static MESSAGE_SECRET_SIZE],
                  uint8_t ret[static 32])
{
    return gnutls_hmac_fast(GNUTLS_MAC_SHA256, secret, MESSAGE_SECRET_SIZE, body, size, ret) < 0 ? -EIO : 0;
}

/* base64url without its padding. */
static void text_of(const uint8_t *body, size_t size, char ret[static TICKET_TEXT_MAX])
{
    struct base64_encode_ctx ctx;
    size_t n = strlen(prefix);

    strcpy(ret, prefix);
    base64url_encode_init(&ctx);
    n += base64_encode_update(&ctx, ret + n, size, body);
    n += base64_encode_final(&ctx, ret + n);
    while (ret[n - 1] == '=')
        n--;
    ret[n] = '\0';
}

int ticket_encode(const struct ticket *ticket, char ret[static TICKET_TEXT_MAX])
{
    uint8_t body[BODY_MAX] = {0}, mac[32];
    uint64_t id = htole64(ticket->id), expiry = htole64(ticket->expiry);
    size_t at = HEAD;
    int r;

    body[0] = (uint8_t)ticket->security;
    body[1] = (uint8_t)ticket->n_endpoints;
    memcpy(body + 4, &id, sizeof(id));
    memcpy(body + 12, &expiry, sizeof(expiry));
    memcpy(body + 20, ticket->secret, MESSAGE_SECRET_SIZE);
    for (uint32_t i = 0; i < ticket->n_endpoints; i++) {
        size_t n = strlen(ticket->endpoints[i]);

        body[at++] = (uint8_t)n;
        memcpy(body + at, ticket->endpoints[i], n);
        at += n;
    }
    r = mac_of(body, at, ticket->secret, mac);
    if (r >= 0) {
        memcpy(body + at, mac, MAC);
        text_of(body, at + MAC, ret);
    }
    explicit_bzero(body, sizeof(body));
    return r;
}

/* The bytes of the text; 0 where it is not base64url as we would write it. */
static size_t bytes_of(const char *text, uint8_t body[static BODY_MAX + 3])
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    struct base64_decode_ctx ctx;
    size_t n = strlen(text), size = 0, more = 0;

    if (strspn(text, alphabet) != n || n % 4 == 1 || n * 3 / 4 > BODY_MAX)
        return 0;
    base64url_decode_init(&ctx);
    if (!base64_decode_update(&ctx, &size, body, n, text))
        return 0;
    if (n % 4 != 0 && !base64_decode_update(&ctx, &more, body + size, 4 - n % 4, "=="))
        return 0;
    return base64_decode_final(&ctx) ? size + more : 0;
}

static bool parse_body(const uint8_t *body, size_t size, struct ticket *ret)
{
    uint8_t mac[32];
    uint64_t v;
    size_t at = HEAD;

    if (size < HEAD + MAC)
        return false;
    memcpy(ret->secret, body + 20, MESSAGE_SECRET_SIZE);
    if (mac_of(body, size - MAC, ret->secret, mac) < 0 || gnutls_memcmp(mac, body + size - MAC, MAC) != 0)
        return false;
    size -= MAC;

    if (body[0] > SECURITY_PLAIN || body[1] > TICKET_ENDPOINTS_MAX || body[2] != 0 || body[3] != 0)
        return false;
    ret->security = body[0];
    ret->n_endpoints = body[1];
    memcpy(&v, body + 4, sizeof(v));
    ret->id = le64toh(v);
    memcpy(&v, body + 12, sizeof(v));
    ret->expiry = le64toh(v);
    for (uint32_t i = 0; i < ret->n_endpoints; i++) {
        size_t n = at < size ? body[at++] : 0;

        if (n == 0 || n >= ADDRESS_TEXT_MAX || n > size - at)
            return false;
        memcpy(ret->endpoints[i], body + at, n);
        if (strlen(ret->endpoints[i]) != n || !message_text_ok(ret->endpoints[i], ADDRESS_TEXT_MAX))
            return false;
        at += n;
    }
    return at == size;
}

enum ticket_verdict ticket_decode(const char *text, struct ticket *ret)
{
    uint8_t body[BODY_MAX + 3];
    char again[TICKET_TEXT_MAX];
    size_t digits, size;
    bool ok;

    memset(ret, 0, sizeof(*ret));
    if (strncmp(text, prefix, strlen(prefix)) != 0) {
        digits = strncmp(text, "vmferry", 7) == 0 ? strspn(text + 7, "0123456789") : 0;
        return digits > 0 && text[7 + digits] == ':' ? TICKET_VERSION : TICKET_BAD;
    }
    size = bytes_of(text + strlen(prefix), body);
    ok = size > 0 && parse_body(body, size, ret);
    if (ok) {
        /* Only the one spelling: the bits that base64 leaves over must not be a place for anything. */
        text_of(body, size, again);
        ok = strcmp(again, text) == 0;
        explicit_bzero(again, sizeof(again));
    }
    explicit_bzero(body, sizeof(body));
    if (!ok)
        ticket_clear(ret);
    return ok ? TICKET_OK : TICKET_BAD;
}
