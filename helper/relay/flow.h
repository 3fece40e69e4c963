/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One direction of one channel. Out of QEMU: the ring keeps what came from QEMU until the peer acknowledges
 * it, so that it can be sent again. In to QEMU: the ring forgets what came from the peer as soon as QEMU has
 * it. The ledger: the ring's end = taken (or received), its cursor = sent (or delivered), and acked.
 *
 * A flow ends at its total: for one out of QEMU that is where QEMU's EOF was, for one in to QEMU what the
 * peer's FIN said. It has ended when all up to there is acknowledged (delivered).
 */

#include <stdbool.h>
#include <stdint.h>

#include "helper/carrier/carrier.h"
#include "helper/relay/pacer.h"
#include "helper/relay/window.h"

#define FLOW_BUFFER   ((size_t)1 * 1024 * 1024) /* bytes on the way in to QEMU, at most */
#define FLOW_ACK_STEP ((uint64_t)256 * 1024)    /* delivered bytes that are acknowledged at once */
#define FLOW_BUDGET   ((size_t)256 * 1024)      /* bytes that one pump moves where no other channel waits */
#define FLOW_TURN     ((size_t)64 * 1024)       /* and where others may have their turn */

enum flow_kind {
    FLOW_OUT, /* QEMU → peer */
    FLOW_IN,  /* peer → QEMU */
};

struct flow {
    enum flow_kind kind;
    struct carrier *from;     /* borrowed; NULL while it is not there */
    struct carrier *to;       /* borrowed; NULL while it is not there */
    struct pacer *pacer;      /* borrowed; NULL: as fast as it goes */
    struct pacer_share share; /* of the pacer's */
    struct ring ring;
    bool expendable;      /* an end that QEMU's side breaks off is an end: what it has not taken is dropped */
    uint64_t dropped;     /* in: bytes that were dropped so */
    bool forgetful;       /* out: nothing is kept, for a migration that is never resumed */
    uint64_t acked;       /* out: bytes that the peer has delivered */
    struct window window; /* out: whether the ring is too small for the distance */
    size_t grown;         /* out: bytes by which it has grown for that, out of the pool's */
    uint64_t total;       /* bytes; meaningful once ending */
    bool ending;          /* total is known */
    unsigned fin; /* the control connection on which the peer was told the total (out), or told it (in) */
    bool shut;    /* in: QEMU was told that no more comes */
    int pipe;     /* in: owned; for the ring, which does not have it now; −1: none */
    size_t pipe_size;
};

/* What a pump came to. */
enum flow_verdict {
    FLOW_OK,
    FLOW_FROM_LOST, /* the connection that it reads from is broken, or ended too early */
    FLOW_TO_LOST,   /* the connection that it writes to is broken */
    FLOW_NO_MEMORY,
};

/*
 * With neither end yet; borrows pool. capacity: of the ring, in bytes. 0 or -ENOMEM. flow_clear() gives the
 * memory back to the pool and closes the pipe; both ends stay their owner's.
 */
int flow_init(struct flow *flow, enum flow_kind kind, struct ring_pool *pool, size_t capacity);
void flow_clear(struct flow *flow);

/*
 * In: bytes are spliced through this pipe, which holds size bytes, while both ends can splice and are not
 * shared. Where a connection that cannot takes the place of one that could, or the other way round, the flow
 * first sends what it holds, and reads nothing until then. Takes the pipe.
 */
void flow_use_pipe(struct flow *flow, int pipe, size_t size);

/* Moves what can be moved now, at most about budget bytes; now in µs (CLOCK_MONOTONIC) is for the pacer. */
enum flow_verdict flow_pump(struct flow *flow, uint64_t now, size_t budget);

/* What to wait for; false also where an end is missing. */
bool flow_wants_input(const struct flow *flow);

/* There is an end to read from, and room, of the kind that is wanted; the pacer is not asked. */
bool flow_could_read(const struct flow *flow);
bool flow_wants_output(const struct flow *flow);

/* It would take more if the pacer let it: the caller has to wake it. */
bool flow_is_paced(const struct flow *flow);

/* Out: all went out, and the peer was not told the total on the control connection of this number. */
bool flow_fin_is_due(const struct flow *flow, unsigned connection);

/* All of it is acknowledged (delivered, and QEMU was told). */
bool flow_ended(const struct flow *flow);

/* ---- What the peer says; NULL, or why it cannot be true ---- */

/* Out: the peer has delivered so many bytes. */
const char *flow_on_ack(struct flow *flow, uint64_t delivered);

/* Out: a new peer connection takes the place of one that was lost, and goes on from what the peer has
 * received.
 */
const char *flow_resume(struct flow *flow, uint64_t received);

/* In: the peer's QEMU ended after so many bytes, it says on the control connection of this number: once on
 * each, since what was said on one that was lost may not have been heard. */
const char *flow_on_fin(struct flow *flow, uint64_t total, unsigned connection);
