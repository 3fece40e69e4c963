/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What both kinds of handshake look at: whether the first bytes that come are a rejection instead. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct handshake {
    bool connecting;   /* this side made the peer connection */
    bool heard;        /* something has come */
    uint32_t rejected; /* enum vf_error of the rejection */
};

/*
 * Bytes have come. 0 when they may belong to a handshake; -ECONNREFUSED when they are a rejection, which only
 * the connecting side gets.
 */
int handshake_hear(struct handshake *handshake, const uint8_t *data, size_t size);
