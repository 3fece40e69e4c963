/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* TLS in the kernel (linux/tls.h): from here on it encrypts what is sent on a socket, and decrypts what is
 * received. */

#include <gnutls/gnutls.h>

#include "carrier.h"

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

/*
 * Hands both directions of a session of TLS 1.3, whose socket this is, to the kernel, with their keys.
 * Nothing of what the other end has sent since the handshake may have been read, and nothing may be left to
 * be sent.
 *
 * 1: it is the kernel's, and the session must not be used any more. 0: nothing has changed, for the kernel
 * (or this kind of socket) has no TLS. -ENOTRECOVERABLE: it took one direction only, so that the connection
 * is of no use.
 */
int ktls_start(int fd, gnutls_session_t session);

/* The carrier's, as carrier_ops says, once its TLS is the kernel's. Any record that has no data, such as a
 * KeyUpdate or an alert, breaks the connection. */
ssize_t ktls_recv(struct carrier *carrier, struct ring *ring, size_t max);
ssize_t ktls_send(struct carrier *carrier, struct ring *ring);

/* Bytes that a pipe must hold, empty, to take a record in whatever pieces: 32 slots, where a packet has up
 * to 18. */
#define KTLS_PIPE_MIN (128 * 1024)

/* Records that AES-GCM may protect with one key: 2^24.5, RFC 8446, 5.5. The kernel does not change it, so
 * that the connection is lost then, and another takes its place. */
#define KTLS_RECORDS_MAX ((uint64_t)23726566)
