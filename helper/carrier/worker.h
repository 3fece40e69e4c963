/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The threads of one helper that move bytes, besides its first, which has the event loop and all decisions.
 * They are started before the sandbox, which then takes hold of them too, and each waits for its carriers in
 * an epoll(7) of its own: sd-event is for one thread.
 *
 * Whoever touches what is a worker's holds its lock, the worker too; and a worker holds no other one's.
 */

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#define WORKERS_MAX 8

struct worker;

/* In the worker's thread: these events (epoll_ctl(2)) of what was added with this tag. It may be gone by now.
 */
typedef void (*worker_ready_t)(struct worker *worker, uint64_t tag, uint32_t revents, void *userdata);

struct worker {
    struct workers *workers;
    pthread_mutex_t lock; /* recursive */
    pthread_mutex_t next; /* held by the first thread while it waits for that */
    pthread_t thread;
    int epoll;  /* owned */
    uint32_t n; /* what is its; the first thread's to count */
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

/* Starts one a processor, up to WORKERS_MAX; fewer, or none, where that cannot be had. All run on return. */
void workers_start(struct workers *workers);

/* Who is told; before anything is added. */
void workers_set_handler(struct workers *workers, worker_ready_t ready, void *userdata);

/* The one that has least to do; NULL without any. */
struct worker *workers_pick(struct workers *workers);

/* Waits until all have ended: from then on nobody is told of anything. What they had may still be locked. */
void workers_stop(struct workers *workers);

/* After workers_stop(). Both are safe on WORKERS_NONE. */
void workers_clear(struct workers *workers);

/* Wakes the first thread by the descriptor `news`. For workers. */
void workers_tell(struct workers *workers);

/* What was told before is known now, and the next call of workers_tell() wakes again. */
void workers_heard(struct workers *workers);

/* For the first thread. NULL: its own, which needs no lock. */
static inline struct worker *worker_lock(struct worker *worker)
{
    if (worker) {
        pthread_mutex_lock(&worker->next);
        pthread_mutex_lock(&worker->lock);
        pthread_mutex_unlock(&worker->next);
    }
    return worker;
}

/* For the worker. It lets the first thread go first: a mutex alone would go, again and again, to who has just
 * given it back, and that is the one that is at work. */
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
