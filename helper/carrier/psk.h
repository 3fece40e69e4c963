/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A GnuTLS session of TLS 1.3 with an external key (RFC 8446, 4.2.11), before its transport is set. */

#include <gnutls/gnutls.h>
#include <stdbool.h>

#include "helper/carrier/aead.h"
#include "helper/protocol/key.h"

struct psk {
    gnutls_session_t session; /* owned, as the next two */
    gnutls_psk_client_credentials_t client;
    gnutls_psk_server_credentials_t server;
    char identity[17];
    uint8_t key[KEY_SIZE]; /* until psk_forget_key() */
};

/*
 * psk: zeroed, and at its place until psk_close(), which it needs also where this fails. id: the migration's.
 * preferred: the cipher that this side names first. 0 or a negative errno.
 */
int psk_open(struct psk *psk, bool connecting, uint64_t id, const uint8_t key[static KEY_SIZE],
             enum aead_cipher preferred);

/* After the handshake nothing needs it. */
void psk_forget_key(struct psk *psk);

void psk_close(struct psk *psk);
