/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A carrier of a peer connection over TLS 1.3 with a PSK. */

#include "helper/carrier/aead.h"
#include "helper/carrier/carrier.h"
#include "helper/protocol/greeting.h"

#define CARRIER_TLS_BUFFER_MIN ((size_t)32 * 1024)

/* Records after which a key is renewed, at most RECORDS_MAX. Tests lower it, before there is a carrier. */
extern uint64_t carrier_tls_renewal;

/*
 * Takes fd on success; borrows aeads. buffer: bytes that it may hold in each direction, at least
 * CARRIER_TLS_BUFFER_MIN. 0 or a negative errno.
 */
int carrier_tls_new(int fd, bool connecting, const struct preamble *preamble,
                    const uint8_t key[static KEY_SIZE], size_t buffer, const struct aead_choice *aeads,
                    struct carrier **ret);
