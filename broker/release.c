/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/release.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include "broker/log-sample.h"
#include "broker/log.h"
#include "common/clock.h"

enum {
    STACK = 256 * 1024, /* bytes of each thread's stack */
    SLOW = 1000000,     /* µs after which a close counts as one that hangs */
    PATIENCE = 5000,    /* ms for a barrier */
};

struct job {
    int fd;
    int barrier; /* or −1 */
};

/* One per process, as the descriptors are: close(2) says nothing but a number. */
static struct {
    pthread_mutex_t lock; /* of all that follows */
    pthread_cond_t work;  /* a job has come */
    pthread_cond_t watch; /* a close has begun, and the warden sleeps */
    bool watched;         /* the warden does not sleep */
    struct job *jobs;     /* a ring of size, n of them used from first on */
    size_t size, first, n;
    uint64_t n_taken;                /* in all */
    uint64_t since[RELEASE_THREADS]; /* when its close began; µs, CLOCK_MONOTONIC; 0: it is in none */
    bool slow[RELEASE_THREADS];      /* it hangs, and is counted */
    size_t n_slow;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER};

/* The warden's alone. */
static struct log_sample logged;
static bool said; /* that a close hangs: that it is over is said, too */

/* This is the thread that must not wait. */
static _Thread_local bool deferring;

/* Never ours below, and never that of a library. */
static int close_now(int fd)
{
    return (int)syscall(SYS_close, fd);
}

/* ---- The threads that close ---- */

static void begin(size_t i)
{
    pool.since[i] = exact_now();
    if (!pool.watched)
        pthread_cond_signal(&pool.watch);
}

static void end(size_t i)
{
    pool.since[i] = 0;
    pool.n_slow -= pool.slow[i];
    pool.slow[i] = false;
}

static void await(int barrier)
{
    struct pollfd p = {.fd = barrier};

    poll(&p, 1, PATIENCE); /* POLLHUP */
    close_now(barrier);
}

static void *worker(void *userdata)
{
    const size_t i = (size_t)(uintptr_t)userdata;

    pthread_mutex_lock(&pool.lock);
    for (;;) {
        struct job job;

        while (pool.n == 0)
            pthread_cond_wait(&pool.work, &pool.lock);
        job = pool.jobs[pool.first];
        pool.first = (pool.first + 1) % pool.size;
        pool.n--;
        if (job.barrier >= 0) {
            pthread_mutex_unlock(&pool.lock);
            await(job.barrier);
            pthread_mutex_lock(&pool.lock);
        }
        begin(i);
        pthread_mutex_unlock(&pool.lock);
        close_now(job.fd);
        pthread_mutex_lock(&pool.lock);
        end(i);
    }
    return NULL;
}

/* ---- The thread that looks after them ---- */

/* With the lock held, but for while it logs: the loop must not wait for the lock that long. */
static void look(void)
{
    const uint64_t now = exact_now();
    size_t n = 0, n_slow, n_waiting;

    for (size_t i = 0; i < RELEASE_THREADS; i++)
        if (pool.since[i] != 0 && !pool.slow[i] && now - pool.since[i] >= SLOW) {
            pool.slow[i] = true;
            n++;
        }
    n_slow = pool.n_slow += n;
    n_waiting = pool.n;
    pthread_mutex_unlock(&pool.lock);
    if (n > 0 && log_sample(&logged, "descriptors that do not close")) {
        log_event(LOG_WARNING, NULL, NULL,
                  "A descriptor that another process passed does not close (a socket that lingers, or a FUSE "
                  "file): %zu of %d threads hang, %zu descriptors wait for one.",
                  n_slow, RELEASE_THREADS, n_waiting);
        said = true;
    }
    if (said && n_slow == 0) {
        log_event(LOG_NOTICE, NULL, NULL, "The descriptors that did not close are closed.");
        said = false;
    }
    pthread_mutex_lock(&pool.lock);
}

static bool is_busy(void)
{
    for (size_t i = 0; i < RELEASE_THREADS; i++)
        if (pool.since[i] != 0)
            return true;
    return pool.n > 0 || said;
}

static void *warden(void *userdata)
{
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        uint64_t until = exact_now() + SLOW;
        const struct timespec time = {.tv_sec = (time_t)(until / 1000000),
                                      .tv_nsec = (long)(until % 1000000 * 1000)};

        pool.watched = is_busy();
        if (pool.watched)
            pthread_cond_timedwait(&pool.watch, &pool.lock, &time);
        else
            pthread_cond_wait(&pool.watch, &pool.lock);
        look();
    }
    return NULL;
}

/* ---- What is handed to them ---- */

static bool put(int fd, int barrier)
{
    bool fits;

    pthread_mutex_lock(&pool.lock);
    fits = pool.n < pool.size;
    if (fits) {
        pool.jobs[(pool.first + pool.n++) % pool.size] = (struct job){fd, barrier};
        pool.n_taken++;
        pthread_cond_signal(&pool.work);
    }
    pthread_mutex_unlock(&pool.lock);
    return fits;
}

/* What finds no room stays open, and this process ends soon. Not with the lock held: what logs may close. */
static void hand_over(int fd, int barrier)
{
    const int saved = errno;
    static bool told;

    if (!put(fd, barrier) && !told) {
        told = true;
        log_event(LOG_ERR, NULL, NULL,
                  "%zu descriptors that other processes passed wait to be closed, and no more can: vmferryd "
                  "ends, which closes them, and starts again.",
                  pool.size);
        kill(getpid(), SIGTERM);
    }
    errno = saved;
}

/*
 * Stands in front of libc's for the whole program, the libraries that it loads included: the dynamic linker
 * looks a name up in the executable first. For sd_bus_message_unref() closes what came with a message inside
 * of libsystemd, also where no argument refers to it or no object has that path, and no function of sd-bus
 * tells its number before. libc does not close by it what it opened itself (fclose(3), closedir(3)), nor in a
 * child of posix_spawn(3).
 *
 * The number stays taken until one of the threads closes it, so nothing else gets it meanwhile. To this
 * program a descriptor is closed when this has returned; to the other end some microseconds later.
 */
__attribute__((visibility("default"), used)) int close(int fd)
{
    if (!deferring || fcntl(fd, F_GETFD) < 0) /* −1, and the like: EBADF */
        return close_now(fd);
    hand_over(fd, -1);
    return 0;
}

void release_after(int fd, int barrier)
{
    if (deferring) {
        hand_over(fd, barrier);
    } else {
        close_now(barrier);
        close_now(fd);
    }
}

void release_own(int *fd)
{
    const int saved = errno;

    if (*fd >= 0)
        close_now(*fd);
    *fd = -1;
    errno = saved;
}

bool release_is_stuck(void)
{
    bool stuck;

    pthread_mutex_lock(&pool.lock);
    stuck = pool.n_slow == RELEASE_THREADS;
    pthread_mutex_unlock(&pool.lock);
    return stuck;
}

void release_count(size_t *ret_hanging, size_t *ret_waiting)
{
    pthread_mutex_lock(&pool.lock);
    *ret_hanging = pool.n_slow;
    *ret_waiting = pool.n;
    pthread_mutex_unlock(&pool.lock);
}

/* ---- The start ---- */

static int make_room(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return -errno;
    pool.size = limit.rlim_cur / 2 < RELEASE_WAITING_MAX ? (size_t)(limit.rlim_cur / 2) : RELEASE_WAITING_MAX;
    pool.jobs = calloc(pool.size, sizeof(*pool.jobs));
    return pool.jobs ? 0 : -ENOMEM;
}

static int make_watch(void)
{
    pthread_condattr_t attr;
    int r = pthread_condattr_init(&attr);

    if (r != 0)
        return -r;
    r = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    if (r == 0)
        r = pthread_cond_init(&pool.watch, &attr);
    pthread_condattr_destroy(&attr);
    return -r;
}

static int make_threads(void)
{
    pthread_attr_t attr;
    pthread_t thread;
    sigset_t all, before;
    int r = pthread_attr_init(&attr);

    if (r != 0)
        return -r;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_attr_setstacksize(&attr, STACK);
    if (r == 0)
        r = pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    for (size_t i = 0; r == 0 && i < RELEASE_THREADS; i++)
        r = pthread_create(&thread, &attr, worker, (void *)(uintptr_t)i);
    if (r == 0)
        r = pthread_create(&thread, &attr, warden, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    return -r;
}

/* Whether libsystemd closes by our close(), seen by a descriptor of its own. */
static bool reaches_libsystemd(void)
{
    const uint64_t before = pool.n_taken;
    sd_event *event = NULL;

    if (sd_event_new(&event) < 0)
        return false;
    sd_event_unref(event);
    return pool.n_taken > before;
}

int release_start(void)
{
    int r = make_room();

    if (r >= 0)
        r = make_watch();
    if (r >= 0)
        r = make_threads();
    if (r < 0)
        return r;
    deferring = true;
    if (reaches_libsystemd())
        return 0;
    log_event(
        LOG_ERR, NULL, NULL,
        "libsystemd does not close by the close() of this program: it must be linked as a shared library.");
    return -ENOTSUP;
}
