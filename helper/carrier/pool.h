/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The free blocks of one helper's memory, which all of its rings share, in whatever thread. */

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#define RING_BLOCK ((size_t)128 * 1024)

/* Zeroed at first, but for lock and max_free. */
struct ring_pool {
    pthread_mutex_t lock;
    void *free; /* linked through the first word of each block */
    size_t n_free;
    size_t max_free; /* beyond these, blocks go back to malloc(3) */
    size_t growth;   /* bytes that rings may still grow by, all together */
};

/* A block, whatever is in it; NULL without memory. Last in, first out, so that it may still be in the cache.
 */
uint8_t *ring_pool_take(struct ring_pool *pool);

/* Takes a block that ring_pool_take() gave. */
void ring_pool_give(struct ring_pool *pool, uint8_t *block);

/* Adds size bytes to what rings may still grow by; or takes up to size bytes of that, and returns how many.
 */
void ring_pool_allow(struct ring_pool *pool, size_t size);
size_t ring_pool_grant(struct ring_pool *pool, size_t size);

/* Frees the free blocks. Those that rings have must be given back before. */
void ring_pool_clear(struct ring_pool *pool);

/* Gives half of the free blocks back to malloc(3). Call it now and then. */
void ring_pool_trim(struct ring_pool *pool);
