/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/carrier/ring.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

/* One more than fit: a ring that is full seldom begins at a block's begin, and touches one block more. */
static size_t slots_for(size_t capacity)
{
    return (capacity + RING_BLOCK - 1) / RING_BLOCK + 1;
}

int ring_init(struct ring *ring, struct ring_pool *pool, size_t capacity)
{
    size_t n_slots = slots_for(capacity);
    uint8_t **slots = calloc(n_slots, sizeof(*slots));

    if (!slots)
        return -ENOMEM;
    *ring = (struct ring){.pool = pool,
                          .capacity = capacity,
                          .memory = capacity,
                          .n_slots = n_slots,
                          .slots = slots,
                          .pipe = -1};
    return 0;
}

static void free_blocks(struct ring *ring)
{
    for (size_t i = 0; i < ring->n_slots; i++) {
        if (ring->slots[i])
            ring_pool_give(ring->pool, ring->slots[i]);
        ring->slots[i] = NULL;
    }
}

void ring_clear(struct ring *ring)
{
    free_blocks(ring);
    free(ring->slots);
    if (ring->pool) /* a zeroed ring has no pipe, though its number says 0 */
        fd_closep(&ring->pipe);
    *ring = (struct ring){.pipe = -1};
}

static uint8_t **slot_of(const struct ring *ring, uint64_t offset)
{
    return &ring->slots[(offset - ring->origin) / RING_BLOCK % ring->n_slots];
}

/* Where the block begins that this offset is in. */
static uint64_t block_of(const struct ring *ring, uint64_t offset)
{
    return offset - (offset - ring->origin) % RING_BLOCK;
}

/* The pieces of [from, from + size); every block of it must be there. */
static int pieces(const struct ring *ring, uint64_t from, size_t size, struct iovec iov[static RING_IOV_MAX])
{
    int n = 0;

    while (size > 0 && n < RING_IOV_MAX) {
        size_t at = (size_t)(from - block_of(ring, from));
        size_t len = RING_BLOCK - at < size ? RING_BLOCK - at : size;

        iov[n++] = (struct iovec){.iov_base = *slot_of(ring, from) + at, .iov_len = len};
        from += len;
        size -= len;
    }
    return n;
}

int ring_grow(struct ring *ring, size_t size)
{
    const uint64_t first = block_of(ring, ring->begin);
    size_t n_slots = slots_for(ring->memory + size);
    uint8_t **slots = calloc(n_slots, sizeof(*slots));

    assert(ring->pipe < 0);
    if (!slots)
        return -ENOMEM;
    /* All that it has, for blocks beyond the end may be there already. */
    for (size_t i = 0; i < ring->n_slots; i++)
        slots[((first - ring->origin) / RING_BLOCK + i) % n_slots] = *slot_of(ring, first + i * RING_BLOCK);
    free(ring->slots);
    ring->slots = slots;
    ring->n_slots = n_slots;
    ring->memory += size;
    ring->capacity = ring->memory;
    return 0;
}

int ring_reserve(struct ring *ring, size_t max, struct iovec iov[static RING_IOV_MAX])
{
    size_t room = ring_room(ring), got = 0;

    if (max > room)
        max = room;
    while (got < max) {
        uint64_t offset = ring->end + got;
        uint8_t **slot = slot_of(ring, offset);

        if (!*slot) {
            *slot = ring_pool_take(ring->pool);
            if (!*slot)
                break; /* what could be had serves; nothing at all is the caller's error */
        }
        got += RING_BLOCK - (size_t)(offset - block_of(ring, offset));
    }
    if (max > 0 && got == 0)
        return -ENOMEM;
    return pieces(ring, ring->end, got < max ? got : max, iov);
}

void ring_commit(struct ring *ring, size_t n)
{
    assert(ring->end + n - ring->begin <= ring->capacity);
    ring->end += n;
}

int ring_peek(const struct ring *ring, size_t max, struct iovec iov[static RING_IOV_MAX])
{
    size_t unsent = ring_unsent(ring);

    return pieces(ring, ring->cursor, max < unsent ? max : unsent, iov);
}

void ring_advance(struct ring *ring, size_t n)
{
    assert(n <= ring_unsent(ring));
    ring->cursor += n;
    ring->pipe_full = false;
}

void ring_release(struct ring *ring, uint64_t offset)
{
    assert(offset >= ring->begin && offset <= ring->cursor);
    for (uint64_t block = block_of(ring, ring->begin); ring->pipe < 0 && block + RING_BLOCK <= offset;
         block += RING_BLOCK) {
        uint8_t **slot = slot_of(ring, block);

        if (*slot)
            ring_pool_give(ring->pool, *slot);
        *slot = NULL;
    }
    ring->begin = offset;
    /* Empty, it goes on at the start of the block that it has, which is in the cache. Only the origin moves:
     * the block keeps its slot. */
    if (ring_is_empty(ring))
        ring->origin += offset - block_of(ring, offset);
}

void ring_rewind(struct ring *ring, uint64_t offset)
{
    assert(offset >= ring->begin && offset <= ring->cursor && ring->pipe < 0);
    ring->cursor = offset;
}

int ring_append(struct ring *ring, const void *data, size_t size)
{
    const uint8_t *from = data;

    if (size > ring_room(ring))
        return -ENOBUFS;
    while (size > 0) {
        struct iovec iov[RING_IOV_MAX];
        int n = ring_reserve(ring, size, iov);

        if (n < 0)
            return n;
        for (int i = 0; i < n; i++) {
            memcpy(iov[i].iov_base, from, iov[i].iov_len);
            ring_commit(ring, iov[i].iov_len);
            from += iov[i].iov_len;
            size -= iov[i].iov_len;
        }
    }
    return 0;
}

size_t ring_copy(const struct ring *ring, void *data, size_t size)
{
    struct iovec iov[RING_IOV_MAX];
    int n = ring_peek(ring, size, iov);
    size_t got = 0;

    for (int i = 0; i < n; i++) {
        memcpy((uint8_t *)data + got, iov[i].iov_base, iov[i].iov_len);
        got += iov[i].iov_len;
    }
    return got;
}

void ring_use_pipe(struct ring *ring, int pipe, size_t size)
{
    assert(ring_is_empty(ring) && ring->pipe < 0);
    free_blocks(ring); /* the one that an empty ring keeps */
    ring->pipe = pipe;
    ring->pipe_full = false;
    ring->capacity = size;
}

int ring_leave_pipe(struct ring *ring)
{
    assert(ring_is_empty(ring) && ring->pipe >= 0);
    ring->capacity = ring->memory;
    ring->pipe_full = false;
    return fd_steal(&ring->pipe);
}
