/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a flow holds: a bounded run of the stream between three offsets, counted in bytes from its beginning:
 *
 *     begin            cursor                end        begin + capacity
 *       | kept: it went  | it has still to go  | room       |
 *       | out, and may   | out                 |            |
 *       | have to again  |                     |            |
 *
 * Bytes come in at the end, go out at the cursor, and are given back at the begin: on the way to the peer
 * when it has acknowledged them, on the way to QEMU as soon as they went out. Memory is taken in blocks as it
 * is needed and goes back to the pool of its helper, last in first out, so that a fast stream runs in memory
 * that is still in the cache. One that runs empty begins its block anew: a trickle stays in a page or two.
 *
 * The bytes can be in a pipe instead, for carriers that splice(2). Then only the offsets are here, and
 * nothing is kept: begin = cursor. A ring moves between memory and pipe only while it is empty.
 *
 * Does no I/O.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "helper/carrier/pool.h"

#define RING_IOV_MAX 16 /* pieces that one system call is given */

struct ring {
    struct ring_pool *pool; /* borrowed; outlives the ring */
    uint64_t begin;
    uint64_t cursor;
    uint64_t end;
    size_t capacity; /* bytes, of the place where it is now */
    size_t memory;   /* bytes that its blocks may hold */
    size_t n_slots;
    uint8_t **slots; /* the block of offset o is slots[(o − origin) / RING_BLOCK % n_slots] */
    uint64_t origin; /* ≤ begin; moves on where the ring is empty, so that a block is used from its start */
    int pipe;        /* owned, with all from the cursor to the end; −1: the bytes are in the blocks */
    bool pipe_full;  /* it takes no more before something went out: its slots are used up before its bytes */
};

/* 0 or -ENOMEM. Capacity in bytes, at least 1. */
int ring_init(struct ring *ring, struct ring_pool *pool, size_t capacity);

/* From now on it holds size bytes more. Not between ring_reserve() and ring_commit(), and not while there is
 * a pipe. 0 or -ENOMEM: then it is as before. */
int ring_grow(struct ring *ring, size_t size);

/* Gives all memory back; safe on a zeroed ring. */
void ring_clear(struct ring *ring);

/* Nothing is kept, and nothing waits to go out. */
static inline bool ring_is_empty(const struct ring *ring)
{
    return ring->begin == ring->end;
}

/* From now on the bytes are in this pipe, which holds size bytes; takes it. The ring must be empty. */
void ring_use_pipe(struct ring *ring, int pipe, size_t size);

/* From now on the bytes are in memory; returns the pipe, which is the caller's. The ring must be empty. */
int ring_leave_pipe(struct ring *ring);

static inline size_t ring_room(const struct ring *ring)
{
    return ring->pipe_full ? 0 : ring->capacity - (size_t)(ring->end - ring->begin);
}

/* Bytes that wait to go out. */
static inline size_t ring_unsent(const struct ring *ring)
{
    return (size_t)(ring->end - ring->cursor);
}

/*
 * Up to max bytes of room at the end, as pieces; takes blocks for them. Returns the number of pieces (0 when
 * the ring is full), or -ENOMEM. Nothing is in the ring until ring_commit().
 */
int ring_reserve(struct ring *ring, size_t max, struct iovec iov[static RING_IOV_MAX]);

/* The first n bytes that ring_reserve() gave are filled. */
void ring_commit(struct ring *ring, size_t n);

/* Up to max bytes from the cursor on, as pieces; returns their number. */
int ring_peek(const struct ring *ring, size_t max, struct iovec iov[static RING_IOV_MAX]);

/* The first n bytes that ring_peek() gave went out. */
void ring_advance(struct ring *ring, size_t n);

/* All before offset may be forgotten; offset must lie in begin…cursor. Not between ring_reserve() and
 * ring_commit(). */
void ring_release(struct ring *ring, uint64_t offset);

/* Goes back to offset, in begin…cursor: what is between is to be sent again. Not while there is a pipe. */
void ring_rewind(struct ring *ring, uint64_t offset);

/* Copies data in; 0, -ENOBUFS when it does not fit as a whole, or -ENOMEM. */
int ring_append(struct ring *ring, const void *data, size_t size);

/* Copies up to size bytes from the cursor on without moving it; returns how many. */
size_t ring_copy(const struct ring *ring, void *data, size_t size);
