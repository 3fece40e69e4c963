/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A carrier of a peer connection over TLS 1.3 with a PSK. */

#include "helper/carrier/carrier.h"
#include "helper/protocol/greeting.h"

#define CARRIER_TLS_BUFFER_MIN ((size_t)32 * 1024)

/*
 * Takes fd on success. buffer: bytes that it may hold in each direction, at least CARRIER_TLS_BUFFER_MIN. 0
 * or a negative errno.
 */
int carrier_tls_new(int fd, bool connecting, const struct preamble *preamble,
                    const uint8_t key[static KEY_SIZE], size_t buffer, struct carrier **ret);
