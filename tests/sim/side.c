/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "side.h"

#include <string.h>

#include "event.h"

struct side sides[2];

struct stats *side_page(int which)
{
    return &sides[which].page;
}

static void workers_make(struct side *side, unsigned n)
{
    pthread_mutexattr_t recursive;

    side->workers = (struct workers)WORKERS_NONE;
    if (n == 0)
        return;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    side->workers.n = n;
    side->workers.stop = fd_new(file_new(FILE_EVENT));
    side->workers.news = fd_new(file_new(FILE_EVENT));
    for (unsigned i = 0; i < n; i++) {
        struct worker *worker = &side->workers.all[i];

        *worker = (struct worker){.workers = &side->workers, .epoll = fd_new(file_new(FILE_EPOLL))};
        pthread_mutex_init(&worker->lock, &recursive);
        pthread_mutex_init(&worker->next, NULL);
    }
    pthread_mutexattr_destroy(&recursive);
}

static void leave(int which);

/* What comes before the session is not to fail: without it no helper runs. */
static void make_loop(struct side *side, struct file *file)
{
    enum failing fails = sim.fails;

    sim.fails = FAILS_NOTHING;
    sd_event_new(&side->event);
    link_init(&side->link, side->event, fd_new(file));
    side->link.phase = PHASE_RELAY;
    sim.fails = fails;
}

bool side_start(int which, const struct message_start_relay *start, unsigned n_workers)
{
    static const struct aead_choice aeads = {AEAD_AES_128_GCM, {&aead_gnutls, &aead_gnutls}, {0}};
    struct message_start_relay own = *start;
    struct side *side = &sides[which];
    struct file *file = file_new(FILE_LINK);

    *side = (struct side){.ends = side->ends};
    sim.current = which;
    own.role = which == SOURCE ? ROLE_OUTGOING : ROLE_INCOMING;
    file->link = &side->ends;
    make_loop(side, file);
    workers_make(side, n_workers);
    if (session_new(side->event, &side->link, &side->workers, &aeads, &own, fd_new(file_new(FILE_PAGE)),
                    &side->session) < 0) {
        if (!sim.has_failed)
            fault("no session can be made");
        leave(which);
    }
    sim.current = WORLD;
    return side->event;
}

/* ---- Workers ---- */

static struct file *epoll_of(const struct side *side, uint32_t worker)
{
    return fd_file(side->workers.all[worker].epoll);
}

bool side_worker_is_at_work(const pthread_mutex_t *lock)
{
    struct side *side = &sides[sim.current];

    for (uint32_t i = 0; i < side->workers.n; i++) {
        if (&side->workers.all[i].lock != lock || epoll_of(side, i)->n_watched == 0)
            continue;
        side->at_work[i] = side->at_work[i] || chance(400);
        return side->at_work[i];
    }
    return false;
}

static bool worker_is_due(const struct side *side, uint32_t worker)
{
    return side->at_work[worker] || epoll_is_due(epoll_of(side, worker));
}

static void worker_turn(struct side *side, uint32_t which)
{
    struct worker *worker = &side->workers.all[which];
    struct file *epoll = epoll_of(side, which);
    uint32_t events = 0;
    uint64_t tag = 0;

    if (side->at_work[which]) {
        side->at_work[which] = false;
        if (epoll->n_watched == 0)
            return;
        tag = epoll->watched[pick(epoll->n_watched)].tag;
    } else if (!epoll_take(epoll, &tag, &events)) {
        return;
    }
    side->workers.ready(worker, tag, events, side->workers.userdata);
}

/* ---- Turns ---- */

static unsigned due(struct side *side)
{
    unsigned n = event_due(side->event);

    for (uint32_t i = 0; i < side->workers.n; i++)
        n += worker_is_due(side, i);
    return n;
}

unsigned side_due(int which)
{
    struct side *side = &sides[which];

    return side->event && side->frozen_until <= sim.now ? due(side) : 0;
}

void side_turn(int which)
{
    struct side *side = &sides[which];
    uint32_t workers[WORKERS_MAX], n = 0;
    unsigned events = event_due(side->event);
    uint64_t choice;

    for (uint32_t i = 0; i < side->workers.n; i++)
        if (worker_is_due(side, i))
            workers[n++] = i;
    choice = pick(events + n);
    sim.current = which;
    if (choice < n)
        worker_turn(side, workers[choice]);
    else
        event_turn(side->event);
    sim.current = WORLD;
}

uint64_t side_next(int which)
{
    const struct side *side = &sides[which];
    uint64_t next;

    if (!side->event)
        return NEVER;
    next = event_next(side->event);
    return side->frozen_until > sim.now && next < side->frozen_until ? side->frozen_until : next;
}

bool side_leaves(int which)
{
    if (!sides[which].event || !event_exits(sides[which].event))
        return false;
    leave(which);
    return true;
}

/* As helper_run() does at its end. */
static void leave(int which)
{
    struct side *side = &sides[which];

    sim.current = which;
    tell("the helper ends");
    session_free(side->session);
    workers_clear(&side->workers);
    link_clear(&side->link);
    sd_event_unref(side->event);
    side->event = NULL;
    side->session = NULL;
    if (fd_count(which) > 0)
        fault("the helper of side %d leaves %u descriptors", which, fd_count(which));
    sim.current = WORLD;
}

bool side_is_cut_off(int which)
{
    const struct session *session = sides[which].session;

    return session && session->state == STATE_INTERRUPTED && session->connection == CONNECTION_DOWN;
}
