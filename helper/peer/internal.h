/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "helper/limits.h"
#include "helper/peer/events.h"
#include "helper/protocol/key.h"

enum peer_stage {
    PEER_UNUSED,
    PEER_PREAMBLE, /* connecting: the preamble goes out */
    PEER_GREETING, /* accepting, from a caller: the preamble comes in; the gate reads all others */
    PEER_PROOF,    /* the handshake of its security */
    PEER_HELLO,    /* channel: the channel hellos cross */
    PEER_PARKED,   /* channel: proved, but its OPEN is still on the way on the control connection */
    PEER_LINGER,   /* accepting: it was told that it is refused, and may read that */
};

struct peer {
    struct peers *peers;
    enum peer_stage stage;
    enum peer_kind kind;
    bool shared;
    uint32_t serial; /* connecting: of the request */
    uint32_t channel;
    uint64_t since; /* µs, CLOCK_MONOTONIC */
    size_t preamble_sent;
    struct carrier *carrier; /* owned */
    struct ring in, out;     /* for the channel hellos, and for the refusal */
};

enum key_state {
    KEY_NONE,
    KEY_SERVES,
    KEY_USED,
};

struct peers {
    struct peers_options options;
    const struct peer_events *events;
    void *userdata;
    struct {
        enum key_state state;
        uint8_t key[KEY_SIZE];
    } keys[PEER_RESUME + 1]; /* by kind */
    uint32_t n_refused;      /* connections that failed to prove themselves, for the log */
    struct peer all[PEERS_MAX];
};

/* This side made the connection. */
static inline bool peers_connect(const struct peers *peers)
{
    return peers->options.role == ROLE_OUTGOING;
}
