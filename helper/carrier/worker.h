/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The threads of one helper that move bytes, besides its first thread, which has the event loop and decides
 * everything. They start before the sandbox, which so confines them too. Each waits for its carriers with an
 * epoll(7) of its own, since sd-event is for one thread.
 *
 * A thread holds a worker's lock while it touches what belongs to that worker; this includes the worker
 * itself. A worker never holds the lock of another one.
 */

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#define WORKERS_MAX 8

struct worker;

/* Called in the worker's thread: these events (epoll_ctl(2)) came for what was added with this tag, which may
 * be gone by now. */
typedef void (*worker_ready_t)(struct worker *worker, uint64_t tag, uint32_t revents, void *userdata);

struct worker {
    struct workers *workers;
    pthread_mutex_t lock; /* recursive */
    pthread_mutex_t next; /* the first thread holds it while it waits for the lock */
    pthread_t thread;
    int epoll;  /* owned */
    uint32_t n; /* relays that it has; only the first thread counts them */
};

struct workers {
    struct worker all[WORKERS_MAX];
    uint32_t n; /* that run */
    int stop;   /* owned: an eventfd(2) that each of them waits for */
    int news;   /* owned: one that the first thread waits for */
    sem_t running;
    bool told; /* it is readable, or will be at once */
    worker_ready_t ready;
    void *userdata;
};

#define WORKERS_NONE           \
    {                          \
        .stop = -1, .news = -1 \
    }

/* Starts one worker per processor, up to WORKERS_MAX; fewer, or none, where that fails. All run on return. */
void workers_start(struct workers *workers);

/* Sets the function that workers call. Call it before anything is added. */
void workers_set_handler(struct workers *workers, worker_ready_t ready, void *userdata);

/* The worker with the fewest relays; NULL without workers. */
struct worker *workers_pick(struct workers *workers);

/* Waits until all workers have ended: the handler is not called any more. Their locks can still be taken. */
void workers_stop(struct workers *workers);

/* After workers_stop(). Both are safe on WORKERS_NONE. */
void workers_clear(struct workers *workers);

/* Wakes the first thread by the descriptor `news`. For workers. */
void workers_tell(struct workers *workers);

/* The first thread looks at what it was told now: the next workers_tell() wakes it again. */
void workers_heard(struct workers *workers);

/* For the first thread. NULL: its own relay, which needs no lock. */
static inline struct worker *worker_lock(struct worker *worker)
{
    if (worker) {
        pthread_mutex_lock(&worker->next);
        pthread_mutex_lock(&worker->lock);
        pthread_mutex_unlock(&worker->next);
    }
    return worker;
}

/* For the worker; lets the first thread go first. A plain mutex is not fair: the worker would take it again
 * at once and starve the first thread. */
static inline struct worker *worker_lock_own(struct worker *worker)
{
    pthread_mutex_lock(&worker->next);
    pthread_mutex_unlock(&worker->next);
    pthread_mutex_lock(&worker->lock);
    return worker;
}

static inline void worker_unlockp(struct worker **worker)
{
    if (*worker)
        pthread_mutex_unlock(&(*worker)->lock);
}
