/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/carrier/pool.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* A block that was used before; NULL without one. */
static uint8_t *take_free(struct ring_pool *pool)
{
    void *block;

    pthread_mutex_lock(&pool->lock);
    block = pool->free;
    if (block) {
        memcpy(&pool->free, block, sizeof(void *));
        pool->n_free--;
    }
    pthread_mutex_unlock(&pool->lock);
    return block;
}

uint8_t *ring_pool_take(struct ring_pool *pool)
{
    uint8_t *block = take_free(pool);

    return block ? block : malloc(RING_BLOCK);
}

void ring_pool_give(struct ring_pool *pool, uint8_t *block)
{
    bool keep;

    pthread_mutex_lock(&pool->lock);
    keep = pool->n_free < pool->max_free;
    if (keep) {
        memcpy(block, &pool->free, sizeof(void *));
        pool->free = block;
        pool->n_free++;
    }
    pthread_mutex_unlock(&pool->lock);
    if (!keep)
        free(block);
}

void ring_pool_allow(struct ring_pool *pool, size_t size)
{
    pthread_mutex_lock(&pool->lock);
    pool->growth += size;
    pthread_mutex_unlock(&pool->lock);
}

size_t ring_pool_grant(struct ring_pool *pool, size_t size)
{
    pthread_mutex_lock(&pool->lock);
    size = size < pool->growth ? size : pool->growth;
    pool->growth -= size;
    pthread_mutex_unlock(&pool->lock);
    return size;
}

void ring_pool_clear(struct ring_pool *pool)
{
    uint8_t *block;

    while ((block = take_free(pool)))
        free(block);
}

void ring_pool_trim(struct ring_pool *pool)
{
    size_t n;

    pthread_mutex_lock(&pool->lock);
    n = (pool->n_free + 1) / 2;
    pthread_mutex_unlock(&pool->lock);
    for (; n > 0; n--)
        free(take_free(pool));
}
