/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "helper/limits.h"
#include "helper/peer/events.h"
#include "helper/protocol/key.h"
#include "helper/protocol/mark.h"

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
    uint64_t since;           /* µs, CLOCK_MONOTONIC */
    struct message_mark mark; /* number 0: it has none */
    size_t preamble_sent;
    struct carrier *carrier; /* owned */
    struct ring in, out;     /* for the channel hellos, and for the refusal */
};

enum key_state {
    KEY_NONE,
    KEY_SERVES,
    KEY_USED,
};

/* Whether the peer reads marks (source), or makes them (destination). */
enum marks {
    MARKS_UNKNOWN, /* it has yet to greet */
    MARKS_NONE,    /* it is older than they are */
    MARKS_USED,
};

struct peer_key {
    enum key_state state;
    uint8_t key[KEY_SIZE];
    uint8_t mark_key[KEY_SIZE];
    uint32_t n_made;           /* source: connections with this key */
    uint32_t number;           /* source: that was last given to one */
    struct mark_window window; /* destination: the numbers that have come */
};

struct peers {
    struct peers_options options;
    const struct peer_events *events;
    void *userdata;
    enum marks marks;
    struct peer_key keys[PEER_RESUME + 1]; /* by kind */
    uint64_t late;      /* µs, CLOCK_MONOTONIC: up to then, those with a used ticket have had their turns */
    uint32_t n_refused; /* connections that failed to prove themselves, for the log */
    struct peer all[PEERS_MAX];
};

/* Destination: whether a connection with this preamble, of this migration, may go on to its handshake. A mark
 * is used up by that. */
bool peers_admit(struct peers *peers, const struct preamble *preamble);

/* For the log: one from the network came to nothing, for this reason. */
void peers_log_refused(struct peers *peers, const char *why);

/* This side made the connection. */
static inline bool peers_connect(const struct peers *peers)
{
    return peers->options.role == ROLE_OUTGOING;
}
