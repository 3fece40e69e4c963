/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Moves the bytes of one channel, both ways, between the local QEMU and the peer connection, and keeps the
 * ledger of it. Decides nothing. It belongs to one thread at a time: the first, or a worker (crew.h); all
 * functions but relay_delivered() and relay_owed() are called with the owner's lock held.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/stats.h"
#include "helper/carrier/carrier.h"
#include "helper/relay/flow.h"
#include "helper/relay/pacer.h"

struct relay {
    struct flow out, in;
    struct carrier *qemu, *peer; /* owned; NULL while it is not there */
    unsigned connection;         /* the number of the control connection that the peer connection goes with */
    enum flow_verdict verdict;   /* not FLOW_OK: nothing is moved any more */
    struct flow *failed;         /* then: which one */
    bool paced;                  /* the bandwidth limit holds it back, and nothing waits for QEMU */
    uint64_t sent, received;     /* what the page has of it; received is atomic */
    uint64_t told;               /* atomic: the last acknowledgement that was sent to the peer */
    uint64_t ack;                /* atomic: the last one from the peer that the worker is to hear of */
    const char *violation;       /* why that cannot be true */
    struct stats *page;          /* borrowed */
    struct stats_channel *entry; /* borrowed: its own one of the page */
};

/* What was lost. */
enum relay_loss {
    RELAY_NOTHING_LOST,
    RELAY_QEMU_LOST,
    RELAY_PEER_LOST,
    RELAY_NO_MEMORY,
};

struct relay_options {
    struct ring_pool *pool; /* borrowed, as all of these */
    struct pacer *pacer;    /* of what comes from QEMU */
    size_t window;          /* bytes from QEMU that are kept, at most */
    bool expendable;        /* what breaks off on our side costs only this channel */
    bool forgetful;         /* nothing is kept: the migration is never resumed */
    struct stats *page;
    size_t slot; /* of the page */
};

/* A relay without connections; relay_close() ends it. number: the channel's; stream: the index of its
 * stream's name. 0 or -ENOMEM: then there is nothing to close. */
int relay_init(struct relay *relay, const struct relay_options *options, uint32_t number, uint32_t stream);

/* Closes both connections and frees all; the page keeps the last numbers, with this state. */
void relay_close(struct relay *relay, enum stats_channel_state state);

/* The migration has ended: QEMU loses its connection at once, the peer only after it was told why. */
void relay_quit(struct relay *relay);

void relay_set_state(struct relay *relay, enum stats_channel_state state);

/* Takes the connection to the local QEMU. Nothing is read from it before there is a peer that may refuse. */
void relay_set_qemu(struct relay *relay, struct carrier *qemu);

/* Takes the peer connection, which belongs to the control connection of this number. */
void relay_set_peer(struct relay *relay, struct carrier *peer, unsigned connection);

/* The peer connection is lost: closes it. QEMU's stays, and what QEMU has sent is kept. */
void relay_detach(struct relay *relay);

/* In: through this pipe of size bytes, where both connections can splice; takes it. */
void relay_use_pipe(struct relay *relay, int pipe, size_t size);

/* Moves at most about budget bytes each way, and waits for what comes next; now in µs, CLOCK_MONOTONIC. */
void relay_move(struct relay *relay, uint64_t now, size_t budget);

/* Waits for what there is to wait for. */
void relay_watch(struct relay *relay);

/* Whether the first thread has to act upon what came of it; or, else, has to acknowledge: at once, or also
 * for a little where no timer runs that will see to it. */
bool relay_has_news(const struct relay *relay);
bool relay_owes_ack(const struct relay *relay, bool timer_runs);

enum relay_loss relay_lost(const struct relay *relay);

/* After RELAY_QEMU_LOST: takes that for an end, and drops what QEMU has not taken. false: it cannot. */
bool relay_break_off(struct relay *relay);

/* Bytes that were dropped so. */
static inline uint64_t relay_dropped(const struct relay *relay)
{
    return relay->in.dropped;
}

/* QEMU has taken anything. */
static inline bool relay_has_delivered(const struct relay *relay)
{
    return relay->in.ring.begin > relay->in.dropped;
}

/* Its connections, which it keeps; NULL while one is not there. */
static inline struct carrier *relay_qemu(const struct relay *relay)
{
    return relay->qemu;
}

static inline struct carrier *relay_peer(const struct relay *relay)
{
    return relay->peer;
}

/* The number of the control connection that its last peer connection goes with; 0: there has been none. */
static inline unsigned relay_connection(const struct relay *relay)
{
    return relay->connection;
}

/* The bandwidth limit holds it back, and no poll will wake it. */
static inline bool relay_is_paced(const struct relay *relay)
{
    return relay->paced;
}

/* Why an acknowledgement that its worker has heard of cannot be true; or NULL. */
static inline const char *relay_violation(const struct relay *relay)
{
    return relay->violation;
}

/* ---- The ledger ---- */

/* Bytes that the local QEMU has taken, and how many of them the peer was not told of yet. Without the lock:
 * the first thread need not wait for a worker to acknowledge what that has delivered already. */
static inline uint64_t relay_delivered(const struct relay *relay)
{
    return __atomic_load_n(&relay->received, __ATOMIC_SEQ_CST);
}

static inline uint64_t relay_owed(const struct relay *relay)
{
    return relay_delivered(relay) - __atomic_load_n(&relay->told, __ATOMIC_SEQ_CST);
}

/* What to acknowledge now; the caller tells the peer. */
uint64_t relay_tell(struct relay *relay);

/* QEMU's end, once all before it went out and while this connection has not heard of it: true with the total,
 * which the caller tells the peer. */
bool relay_tell_end(struct relay *relay, uint64_t *ret_total);

/* Both directions have ended and are proved at this side. The last acknowledgement counts, even if the worker
 * has not heard of it yet. */
bool relay_ended(const struct relay *relay);

/* All that the peer's QEMU sent is delivered. */
static inline bool relay_in_ended(const struct relay *relay)
{
    return flow_ended(&relay->in);
}

/* Bytes or an end have come from the peer. */
static inline bool relay_has_input(const struct relay *relay)
{
    return relay->in.ring.end > 0 || relay->in.ending;
}

/* Bytes that went to the peer; that came from it. */
static inline uint64_t relay_sent(const struct relay *relay)
{
    return relay->out.ring.cursor;
}

static inline uint64_t relay_received(const struct relay *relay)
{
    return relay->in.ring.end;
}

/* Anything was moved; at its end: anything was in it. */
static inline bool relay_has_moved(const struct relay *relay)
{
    return relay->out.ring.end + relay->in.ring.end > 0;
}

static inline bool relay_has_carried(const struct relay *relay)
{
    return relay->out.total + relay->in.total > 0;
}

/* ---- What the peer says; NULL, or why it cannot be true. See flow.h ---- */

static inline const char *relay_on_ack(struct relay *relay, uint64_t delivered)
{
    return flow_on_ack(&relay->out, delivered);
}

static inline const char *relay_on_fin(struct relay *relay, uint64_t total, unsigned connection)
{
    return flow_on_fin(&relay->in, total, connection);
}

static inline const char *relay_resume(struct relay *relay, uint64_t received)
{
    return flow_resume(&relay->out, received);
}

/* An acknowledgement that waits for the worker: leaves it, as any thread may; hears of it. */
const char *relay_leave_ack(struct relay *relay, uint64_t delivered);
void relay_take_ack(struct relay *relay);
