/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/release.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
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
    SHARES = 64,        /* users that have descriptors here at a time; the last one stands for all others */
};

struct job {
    int fd;
    int barrier;   /* or −1 */
    uint32_t next; /* in the same queue, where there is one */
};

/* What a user has brought: those that wait, and the threads that have one. Free where it has neither. */
struct share {
    uid_t uid;
    uint32_t first, last; /* of n jobs that wait */
    size_t n;
    size_t n_taken; /* by threads; RELEASE_SHARE at most */
};

struct thread {
    struct share *of; /* whose job it has, or NULL */
    uint64_t since;   /* when its close began; µs, CLOCK_MONOTONIC; 0: it is in none */
    bool slow;        /* it hangs, and is counted */
};

/* One per process, as the descriptors are: close(2) says nothing but a number. */
static struct {
    pthread_mutex_t lock; /* of all that follows */
    pthread_cond_t work;  /* a job has come */
    pthread_cond_t watch; /* a close has begun, and the warden sleeps */
    bool watched;         /* the warden does not sleep */
    struct job *jobs;     /* size of them; those that are used are in the queues of the shares */
    uint32_t free;        /* the first of the others, which are a list */
    size_t size, n;       /* n are used */
    uint64_t n_taken;     /* in all */
    struct share shares[SHARES];
    size_t turn; /* the share that is looked at first */
    struct thread threads[RELEASE_THREADS];
    size_t n_slow;
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER};

/* The warden's alone. */
static struct log_samples logged;
static bool said; /* that a close hangs: that it is over is said, too */

/* This is the thread that must not wait. */
static _Thread_local bool deferring;

/* On whose behalf it does what it does now. */
static uid_t owner = RELEASE_NOBODY;

/* Never ours below, and never that of a library. */
static int close_now(int fd)
{
    return (int)syscall(SYS_close, fd);
}

/* ---- The threads that close ---- */

static void begin(struct thread *thread)
{
    thread->since = exact_now();
    if (!pool.watched)
        pthread_cond_signal(&pool.watch);
}

static void end(struct thread *thread)
{
    pool.n_slow -= thread->slow;
    thread->of->n_taken--;
    *thread = (struct thread){0};
}

static void await(int barrier)
{
    struct pollfd p = {.fd = barrier};

    poll(&p, 1, PATIENCE); /* POLLHUP */
    close_now(barrier);
}

/* The next user's turn, of those whose share is not used up; NULL: nothing can be done. */
static struct share *next_share(void)
{
    for (size_t i = 0; i < SHARES; i++) {
        struct share *share = &pool.shares[(pool.turn + i) % SHARES];

        if (share->n == 0 || share->n_taken >= RELEASE_SHARE)
            continue;
        pool.turn = (size_t)(share - pool.shares) + 1;
        return share;
    }
    return NULL;
}

static struct job take(struct share *share)
{
    const uint32_t i = share->first;
    const struct job job = pool.jobs[i];

    share->first = job.next;
    share->n--;
    share->n_taken++;
    pool.jobs[i].next = pool.free;
    pool.free = i;
    pool.n--;
    return job;
}

static void *worker(void *userdata)
{
    struct thread *thread = userdata;

    pthread_mutex_lock(&pool.lock);
    for (;;) {
        struct job job;

        while (!(thread->of = next_share()))
            pthread_cond_wait(&pool.work, &pool.lock);
        job = take(thread->of);
        if (job.barrier >= 0) {
            pthread_mutex_unlock(&pool.lock);
            await(job.barrier);
            pthread_mutex_lock(&pool.lock);
        }
        begin(thread);
        pthread_mutex_unlock(&pool.lock);
        close_now(job.fd);
        pthread_mutex_lock(&pool.lock);
        end(thread);
    }
    return NULL;
}

/* ---- The thread that looks after them ---- */

/* In the warden's thread, without the lock. */
static void say_that_one_hangs(uid_t uid, size_t n_slow, size_t n_waiting)
{
    char user[24];

    snprintf(user, sizeof(user), "uid %u", uid);
    if (!log_sample_of(&logged, user, "descriptors that do not close"))
        return;
    log_event(LOG_WARNING, NULL, NULL,
              "A descriptor that %s passed does not close (a socket that lingers, or a FUSE file): %zu of %d "
              "threads hang, of which each user has %d at most; %zu descriptors wait for one.",
              user, n_slow, RELEASE_THREADS, RELEASE_SHARE, n_waiting);
    said = true;
}

/* With the lock held, but for while it logs: the loop must not wait for the lock that long. */
static void look(void)
{
    const uint64_t now = exact_now();
    size_t n = 0, n_slow, n_waiting;
    uid_t of = 0;

    for (struct thread *thread = pool.threads; thread < pool.threads + RELEASE_THREADS; thread++)
        if (thread->since != 0 && !thread->slow && now - thread->since >= SLOW) {
            thread->slow = true;
            of = thread->of->uid;
            n++;
        }
    n_slow = pool.n_slow += n;
    n_waiting = pool.n;
    pthread_mutex_unlock(&pool.lock);
    if (n > 0)
        say_that_one_hangs(of, n_slow, n_waiting);
    if (said && n_slow == 0) {
        log_event(LOG_NOTICE, NULL, NULL, "The descriptors that did not close are closed.");
        said = false;
    }
    pthread_mutex_lock(&pool.lock);
}

static bool is_busy(void)
{
    for (size_t i = 0; i < RELEASE_THREADS; i++)
        if (pool.threads[i].since != 0)
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

/*
 * Who is to be charged for it. Nothing is asked for which a file system would have to answer, and of a socket
 * nothing that takes its lock. A socket's inode is its maker's; one that was accepted or connected here has a
 * peer, who may have filled its queue.
 */
static uid_t owner_of(int fd)
{
    const uid_t ours = geteuid();
    int domain;
    socklen_t size = sizeof(domain);
    struct ucred peer;
    struct stat st;

    if (owner != RELEASE_NOBODY)
        return owner;
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0 || fstat(fd, &st) < 0)
        return ours;
    size = sizeof(peer);
    if (st.st_uid == ours && domain == AF_UNIX &&
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) >= 0 && peer.uid != RELEASE_NOBODY)
        return peer.uid;
    return st.st_uid;
}

static bool is_free(const struct share *share)
{
    return share->n == 0 && share->n_taken == 0;
}

/* That of a user, who may be new; where there is no room for one more, that of all others. */
static struct share *share_of(uid_t uid)
{
    struct share *found = NULL;

    for (struct share *share = pool.shares; share < pool.shares + SHARES - 1; share++) {
        if (!is_free(share) && share->uid == uid)
            return share;
        if (!found && is_free(share))
            found = share;
    }
    if (!found)
        found = &pool.shares[SHARES - 1];
    if (is_free(found))
        found->uid = uid;
    return found;
}

static void append(struct share *share, int fd, int barrier)
{
    const uint32_t i = pool.free;

    pool.free = pool.jobs[i].next;
    pool.jobs[i] = (struct job){.fd = fd, .barrier = barrier};
    if (share->n++ == 0)
        share->first = i;
    else
        pool.jobs[share->last].next = i;
    share->last = i;
    pool.n++;
    pool.n_taken++;
}

static bool put(int fd, int barrier)
{
    const uid_t uid = owner_of(fd);
    bool fits;

    pthread_mutex_lock(&pool.lock);
    fits = pool.n < pool.size;
    if (fits) {
        append(share_of(uid), fd, barrier);
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

void release_charge(uid_t uid)
{
    owner = uid;
}

bool release_is_stuck(void)
{
    size_t n = 0;
    bool stuck;

    pthread_mutex_lock(&pool.lock);
    for (size_t i = 0; i < RELEASE_THREADS; i++)
        n += pool.threads[i].slow && pool.threads[i].of->uid == owner;
    stuck = pool.n_slow == RELEASE_THREADS || n >= RELEASE_SHARE;
    pthread_mutex_unlock(&pool.lock);
    return stuck;
}

/* ---- The start ---- */

static int make_room(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return -errno;
    pool.size = limit.rlim_cur / 2 < RELEASE_WAITING_MAX ? (size_t)(limit.rlim_cur / 2) : RELEASE_WAITING_MAX;
    pool.jobs = calloc(pool.size, sizeof(*pool.jobs));
    if (!pool.jobs)
        return -ENOMEM;
    for (size_t i = 0; i < pool.size; i++)
        pool.jobs[i].next = (uint32_t)i + 1; /* that of the last one is never used: n is size then */
    return 0;
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
        r = pthread_create(&thread, &attr, worker, &pool.threads[i]);
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
