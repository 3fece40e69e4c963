/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/carrier/worker.h"

#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/cleanup.h"

#define TAG_STOP UINT64_MAX

enum {
    EVENTS = 16,
    STACK = 256 * 1024, /* many times what a batch of records needs */
};

static void *run(void *userdata)
{
    struct worker *worker = userdata;
    struct workers *workers = worker->workers;
    struct epoll_event events[EVENTS];

    sem_post(&workers->running);
    for (;;) {
        int n = epoll_wait(worker->epoll, events, EVENTS, -1);

        if (n < 0 && errno != EINTR)
            abort(); /* it cannot happen; and a thread that waits for ever would be worse */
        for (int i = 0; i < n; i++) {
            if (events[i].data.u64 == TAG_STOP)
                return NULL;
            workers->ready(worker, events[i].data.u64, events[i].events, workers->userdata);
        }
    }
}

static int start_one(struct workers *workers, const pthread_attr_t *attr,
                     const pthread_mutexattr_t *recursive)
{
    struct epoll_event stop = {.events = EPOLLIN, .data.u64 = TAG_STOP};
    struct worker *worker = &workers->all[workers->n];
    _cleanup_fd_ int epoll = epoll_create1(EPOLL_CLOEXEC);

    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, workers->stop, &stop) < 0)
        return -errno;
    *worker = (struct worker){.workers = workers, .epoll = epoll};
    /* The first thread locks again down its own stack: channel_update() and channel_settle() both do. */
    pthread_mutex_init(&worker->lock, recursive);
    pthread_mutex_init(&worker->next, NULL);
    if (pthread_create(&worker->thread, attr, run, worker) != 0) {
        pthread_mutex_destroy(&worker->lock);
        pthread_mutex_destroy(&worker->next);
        return -EAGAIN;
    }
    (void)fd_steal(&epoll);
    workers->n++;
    /* A thread that begins makes system calls that the sandbox does not allow. */
    while (sem_wait(&workers->running) < 0 && errno == EINTR)
        ;
    return 0;
}

static uint32_t n_processors(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof(set), &set) < 0 ? 1 : (uint32_t)CPU_COUNT(&set);
}

void workers_start(struct workers *workers)
{
    uint32_t wanted = n_processors();
    pthread_mutexattr_t recursive;
    pthread_attr_t attr;

    *workers = (struct workers){
        .stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
        .news = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
    };
    if (workers->stop < 0 || workers->news < 0)
        return;
    mallopt(M_ARENA_MAX, 1); /* memory that a thread has freed serves the others */
    sem_init(&workers->running, 0, 0);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK);
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    while (workers->n < wanted && workers->n < WORKERS_MAX && start_one(workers, &attr, &recursive) >= 0)
        ;
    sem_destroy(&workers->running);
    pthread_mutexattr_destroy(&recursive);
    pthread_attr_destroy(&attr);
}

void workers_set_handler(struct workers *workers, worker_ready_t ready, void *userdata)
{
    workers->ready = ready;
    workers->userdata = userdata;
}

struct worker *workers_pick(struct workers *workers)
{
    struct worker *least = NULL;

    for (uint32_t i = 0; i < workers->n; i++)
        if (!least || workers->all[i].n < least->n)
            least = &workers->all[i];
    return least;
}

void workers_stop(struct workers *workers)
{
    static const uint64_t one = 1;

    if (workers->n == 0 || write(workers->stop, &one, sizeof(one)) != sizeof(one))
        return;
    for (uint32_t i = 0; i < workers->n; i++)
        pthread_join(workers->all[i].thread, NULL);
}

void workers_clear(struct workers *workers)
{
    for (uint32_t i = 0; i < workers->n; i++) {
        pthread_mutex_destroy(&workers->all[i].lock);
        pthread_mutex_destroy(&workers->all[i].next);
        fd_closep(&workers->all[i].epoll);
    }
    workers->n = 0;
    fd_closep(&workers->stop);
    fd_closep(&workers->news);
}

void workers_tell(struct workers *workers)
{
    static const uint64_t one = 1;

    if (!__atomic_exchange_n(&workers->told, true, __ATOMIC_SEQ_CST) &&
        write(workers->news, &one, sizeof(one)) < 0)
        __atomic_store_n(&workers->told, false, __ATOMIC_SEQ_CST);
}

void workers_heard(struct workers *workers)
{
    uint64_t n;

    /* In this order: what a worker tells from here on writes to the descriptor again. */
    if (read(workers->news, &n, sizeof(n)) == sizeof(n))
        __atomic_store_n(&workers->told, false, __ATOMIC_SEQ_CST);
}
