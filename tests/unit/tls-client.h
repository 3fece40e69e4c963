/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A client of GnuTLS's own, against our accepting side. */

#include "carrier-rig.h"

#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>

#define IDENTITY "0123456789abcdef"

struct client {
    int fd;
    gnutls_session_t session;
    gnutls_psk_client_credentials_t credentials;
};

static inline void client_init(struct client *client, int fd, const char *priorities, const char *identity)
{
    uint8_t copy[KEY_SIZE];
    const gnutls_datum_t datum = {copy, KEY_SIZE};

    memcpy(copy, key, KEY_SIZE);
    client->fd = fd;
    assert_int_equal(gnutls_init(&client->session, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL), 0);
    assert_int_equal(gnutls_priority_set_direct(client->session, priorities, NULL), 0);
    assert_int_equal(gnutls_psk_allocate_client_credentials(&client->credentials), 0);
    assert_int_equal(
        gnutls_psk_set_client_credentials(client->credentials, identity, &datum, GNUTLS_PSK_KEY_RAW), 0);
    assert_int_equal(gnutls_credentials_set(client->session, GNUTLS_CRD_PSK, client->credentials), 0);
    gnutls_transport_set_int(client->session, fd);
}

static inline void client_clear(struct client *client)
{
    gnutls_deinit(client->session);
    gnutls_psk_free_client_credentials(client->credentials);
    close(client->fd);
}

#define OURS "NONE:+VERS-TLS1.3:+AEAD:+SHA256:+SIGN-ALL:"

/* What our side comes to; ret_client, if given, is the client's after a handshake that both made. */
static inline int accept_client(const char *priorities, const char *identity, struct client *client,
                                struct carrier **ret)
{
    int pair[2], r = -EAGAIN, c = GNUTLS_E_AGAIN;

    test_pair(SOCK_STREAM, 0, pair);
    client_init(client, pair[0], priorities, identity);
    *ret = make(TLS, pair[1], false, &preamble, key);
    for (int rounds = 0; rounds < 100 && (r == -EAGAIN || c == GNUTLS_E_AGAIN); rounds++) {
        if (c == GNUTLS_E_AGAIN || c == GNUTLS_E_INTERRUPTED)
            c = gnutls_handshake(client->session);
        if (r == -EAGAIN)
            r = (*ret)->ops->handshake(*ret);
        if (r < 0 && r != -EAGAIN)
            *ret = carrier_free(*ret);
        if (r < 0 && r != -EAGAIN && c != GNUTLS_E_AGAIN)
            break;
    }
    assert_true((r == 0) == (c == 0));
    return r;
}
