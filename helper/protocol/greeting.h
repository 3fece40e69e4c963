/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What opens a peer connection: the preamble, the rejection that may answer it, the channel hello. Pure.
 * docs/vmferry-protocol.7.rst is the description.
 */

#include <stddef.h>
#include <stdint.h>

#include "common/message.h"
#include "helper/protocol/wire.h"

/* ---- The preamble: what the connecting side says first, in clear ---- */

#define PREAMBLE_SIZE 32

struct preamble {
    enum peer_kind kind;
    uint64_t id;
    struct message_mark mark; /* number 0: none */
};

void preamble_encode(const struct preamble *preamble, uint8_t buf[static PREAMBLE_SIZE]);

/* OK, BAD or VERSION; *ret is filled only for OK. */
enum verdict preamble_decode(const uint8_t buf[static PREAMBLE_SIZE], struct preamble *ret);

/*
 * ---- The rejection: what the gate answers to a preamble that leads nowhere, in clear ----
 * Neither side has proved anything by then, so it is a hint for people and changes only the name of the
 * error. Its first byte is 0, with which neither a TLS record nor a proof begins.
 */

#define REJECTION_SIZE 32

void rejection_encode(uint32_t error, uint8_t buf[static REJECTION_SIZE]);

/* OK with the error in *ret_error, or BAD. */
enum verdict rejection_decode(const uint8_t buf[static REJECTION_SIZE], uint32_t *ret_error);

/* ---- The channel hello: the first bytes on a proved channel connection, from each side ---- */

#define CHANNEL_HELLO_SIZE 16

struct channel_hello {
    uint32_t channel;
    uint64_t received; /* the offset from which this side wants the stream */
};

void channel_hello_encode(const struct channel_hello *hello, uint8_t buf[static CHANNEL_HELLO_SIZE]);
enum verdict channel_hello_decode(const uint8_t buf[static CHANNEL_HELLO_SIZE], struct channel_hello *ret);
