/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/carrier/psk.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The suites that a SHA-256 PSK can have; tried on GnuTLS 3.7.9. The accepting side takes the first that the
 * other one names. */
#define PRIORITIES(ciphers) "NONE:+VERS-TLS1.3:" ciphers ":+AEAD:+SHA256:+ECDHE-PSK:+GROUP-X25519:+SIGN-ALL"

static const char *const priorities[AEAD_CIPHERS_] = {
    [AEAD_AES_128_GCM] = PRIORITIES("+AES-128-GCM:+CHACHA20-POLY1305"),
    [AEAD_CHACHA20_POLY1305] = PRIORITIES("+CHACHA20-POLY1305:+AES-128-GCM"),
};

/* The accepting side is asked for the key of an identity; GnuTLS frees what it is given. */
static int on_identity(gnutls_session_t session, const char *identity, gnutls_datum_t *ret)
{
    const struct psk *psk = gnutls_session_get_ptr(session);

    if (strcmp(identity, psk->identity) != 0)
        return -1;
    ret->data = gnutls_malloc(KEY_SIZE);
    if (!ret->data)
        return -1;
    memcpy(ret->data, psk->key, KEY_SIZE);
    ret->size = KEY_SIZE;
    return 0;
}

static int set_credentials(struct psk *psk, bool connecting)
{
    gnutls_datum_t key = {psk->key, KEY_SIZE};
    int r;

    if (connecting) {
        r = gnutls_psk_allocate_client_credentials(&psk->client);
        if (r >= 0)
            r = gnutls_psk_set_client_credentials(psk->client, psk->identity, &key, GNUTLS_PSK_KEY_RAW);
        if (r >= 0)
            r = gnutls_credentials_set(psk->session, GNUTLS_CRD_PSK, psk->client);
    } else {
        r = gnutls_psk_allocate_server_credentials(&psk->server);
        if (r >= 0) {
            gnutls_psk_set_server_credentials_function(psk->server, on_identity);
            r = gnutls_credentials_set(psk->session, GNUTLS_CRD_PSK, psk->server);
        }
    }
    return r;
}

int psk_open(struct psk *psk, bool connecting, uint64_t id, const uint8_t key[static KEY_SIZE],
             enum aead_cipher preferred)
{
    const unsigned flags = GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS;

    memcpy(psk->key, key, KEY_SIZE);
    snprintf(psk->identity, sizeof(psk->identity), "%016" PRIx64, id);
    if (gnutls_init(&psk->session, (connecting ? GNUTLS_CLIENT : GNUTLS_SERVER) | flags) < 0)
        return -ENOMEM;
    gnutls_session_set_ptr(psk->session, psk);
    if (gnutls_priority_set_direct(psk->session, priorities[preferred], NULL) < 0 ||
        set_credentials(psk, connecting) < 0)
        return -EIO;
    return 0;
}

void psk_forget_key(struct psk *psk)
{
    explicit_bzero(psk->key, sizeof(psk->key));
}

void psk_close(struct psk *psk)
{
    if (psk->session)
        gnutls_deinit(psk->session);
    if (psk->client)
        gnutls_psk_free_client_credentials(psk->client);
    if (psk->server)
        gnutls_psk_free_server_credentials(psk->server);
    psk_forget_key(psk);
}
