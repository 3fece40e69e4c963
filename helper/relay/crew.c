/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/relay/crew.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "common/cleanup.h"
#include "common/clock.h"

/* A bit per slot; atomic. */
struct slot_bits {
    uint64_t words[STATS_CHANNELS_MAX / 64];
};

/*
 * The first thread and a worker share a slot like this:
 *
 *     owners[slot]    written by the first thread with the worker's lock held, so that it cannot change
 *                     under that lock
 *     relay           the owner's, under the lock; the first thread takes the lock to look into it
 *     told, owes_ack  worker → first thread, woken by workers_tell()
 *     ack_waiting     first thread → worker: looked at whenever the lock is released
 *
 * Locks are taken in this order: worker->next, worker->lock (recursive), then the pool's or the pacer's,
 * under which nothing else is locked. Only the first thread may wait for a lock of a worker's; a worker waits
 * for its own alone. The first thread may hold two workers' locks (judge() in channel.c), and no worker can
 * cross it.
 */
struct crew {
    struct workers *workers;                   /* borrowed */
    struct relay *relays[STATS_CHANNELS_MAX];  /* borrowed */
    struct worker *owners[STATS_CHANNELS_MAX]; /* of these; NULL: the first thread. Atomic */
    struct slot_bits told;                     /* a worker has told something of it */
    struct slot_bits owes_ack;                 /* the first thread has to acknowledge */
    struct slot_bits ack_waiting;              /* its worker has to hear of an acknowledgement */
    bool ack_timer;                            /* atomic */
    sd_event_source *source;
    const struct crew_events *events;
    void *userdata;
};

static void bit_set(struct slot_bits *bits, size_t slot)
{
    __atomic_fetch_or(&bits->words[slot / 64], (uint64_t)1 << slot % 64, __ATOMIC_SEQ_CST);
}

/* Whether it was set; it is not any more. */
static bool bit_take(struct slot_bits *bits, size_t slot)
{
    uint64_t bit = (uint64_t)1 << slot % 64;

    return (__atomic_load_n(&bits->words[slot / 64], __ATOMIC_SEQ_CST) & bit) &&
           (__atomic_fetch_and(&bits->words[slot / 64], ~bit, __ATOMIC_SEQ_CST) & bit);
}

/* The first slot from there on whose bit is set; STATS_CHANNELS_MAX when there is none. */
static size_t bit_next(const struct slot_bits *bits, size_t slot)
{
    while (slot < STATS_CHANNELS_MAX) {
        uint64_t word = __atomic_load_n(&bits->words[slot / 64], __ATOMIC_SEQ_CST) >> slot % 64;

        if (word != 0)
            return slot + (size_t)__builtin_ctzll(word);
        slot = (slot / 64 + 1) * 64;
    }
    return slot;
}

/* Only the first thread changes it, with the worker's lock held. */
static struct worker *owner_at(const struct crew *crew, size_t slot)
{
    return __atomic_load_n(&crew->owners[slot], __ATOMIC_SEQ_CST);
}

static void set_owner(struct crew *crew, size_t slot, struct worker *worker)
{
    __atomic_store_n(&crew->owners[slot], worker, __ATOMIC_SEQ_CST);
}

/* ---- In a worker's thread ---- */

/* Moves on with the lock held, and tells what came of it. A worker sends no frame: control, session and
 * sd-event are the first thread's. */
static void work(struct crew *crew, size_t slot)
{
    struct relay *relay = crew->relays[slot];

    if (relay_lost(relay) == RELAY_NOTHING_LOST)
        relay_move(relay, exact_now(), FLOW_TURN);
    if (relay_has_news(relay))
        bit_set(&crew->told, slot);
    else if (relay_owes_ack(relay, __atomic_load_n(&crew->ack_timer, __ATOMIC_SEQ_CST)))
        bit_set(&crew->owes_ack, slot);
    else
        return;
    workers_tell(crew->workers);
}

static void settle(struct crew *crew, size_t slot)
{
    crew->events->settle(crew->userdata, slot);
}

static bool take_ack(struct crew *crew, size_t slot)
{
    if (!bit_take(&crew->ack_waiting, slot))
        return false;
    relay_take_ack(crew->relays[slot]);
    return true;
}

/* What the peer has acknowledged of this worker's relays, with its lock held; then() goes on with each. */
static void take_acks(struct crew *crew, const struct worker *worker,
                      void (*then)(struct crew *, size_t slot))
{
    for (size_t slot = 0; (slot = bit_next(&crew->ack_waiting, slot)) < STATS_CHANNELS_MAX; slot++)
        if (owner_at(crew, slot) == worker && take_ack(crew, slot))
            then(crew, slot);
}

static bool has_acks(const struct crew *crew, const struct worker *worker)
{
    size_t slot = 0;

    /* What the first thread says while this one has the lock, it says no second time. See crew_on_ack(). */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    while ((slot = bit_next(&crew->ack_waiting, slot)) < STATS_CHANNELS_MAX && owner_at(crew, slot) != worker)
        slot++;
    return slot < STATS_CHANNELS_MAX;
}

static void on_worker_ready(struct worker *worker, uint64_t tag, uint32_t revents, void *userdata)
{
    struct crew *crew = userdata;
    size_t slot = (size_t)(tag / 2);

    worker_lock_own(worker);
    /* The poll was before the lock: the slot may belong to another thread by now. */
    if (owner_at(crew, slot) == worker) {
        struct carrier *carrier = tag % 2 ? crew->relays[slot]->peer : crew->relays[slot]->qemu;

        if (carrier)
            carrier_polled(carrier, revents);
        work(crew, slot);
    }
    pthread_mutex_unlock(&worker->lock);
    /* After the unlock, see crew_on_ack(): its trylock fails as long as this thread has the lock, and then
     * the ACK is left for this loop. Without it the ring stays full, and no poll comes that would look again.
     */
    while (has_acks(crew, worker)) {
        worker_lock_own(worker);
        take_acks(crew, worker, work);
        pthread_mutex_unlock(&worker->lock);
    }
}

/* ---- In the first thread ---- */

bool crew_has(const struct crew *crew, size_t slot)
{
    return owner_at(crew, slot) != NULL;
}

struct worker *crew_lock(const struct crew *crew, size_t slot)
{
    return worker_lock(owner_at(crew, slot));
}

void crew_set_relay(struct crew *crew, size_t slot, struct relay *relay)
{
    crew->relays[slot] = relay;
}

int crew_attach(struct crew *crew, size_t slot, struct carrier *carrier)
{
    return carrier_attach_worker(carrier, owner_at(crew, slot),
                                 2 * (uint64_t)slot + (carrier == crew->relays[slot]->peer));
}

void crew_take_back(struct crew *crew, size_t slot)
{
    struct worker *worker = owner_at(crew, slot);

    if (worker)
        worker->n--;
    set_owner(crew, slot, NULL);
    /* What was told of it is not of the next channel that has the slot. */
    bit_take(&crew->told, slot);
    bit_take(&crew->owes_ack, slot);
    bit_take(&crew->ack_waiting, slot);
}

int crew_give(struct crew *crew, size_t slot)
{
    struct worker *worker = workers_pick(crew->workers);
    struct relay *relay = crew->relays[slot];
    int r;

    if (!worker || owner_at(crew, slot))
        return 0;
    _cleanup_(worker_unlockp) struct worker *locked = worker_lock(worker);
    worker->n++;
    /* Before crew_attach(): the worker may be woken at once, and waits for the lock that is held here. */
    set_owner(crew, slot, worker);
    r = crew_attach(crew, slot, relay->qemu);
    if (r >= 0)
        r = crew_attach(crew, slot, relay->peer);
    if (r < 0) {
        crew_take_back(crew, slot);
        return r;
    }
    relay_watch(relay);
    return 1;
}

void crew_set_ack_timer(struct crew *crew, bool runs)
{
    __atomic_store_n(&crew->ack_timer, runs, __ATOMIC_SEQ_CST);
}

const char *crew_on_ack(struct crew *crew, size_t slot, uint64_t delivered)
{
    struct worker *worker = owner_at(crew, slot);
    const char *why = relay_leave_ack(crew->relays[slot], delivered);

    if (why)
        return why;
    bit_set(&crew->ack_waiting, slot);
    /* If the worker holds the lock, it looks at ack_waiting again after it has released it: so this thread
     * need not wait for it, which may be encrypting. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (pthread_mutex_trylock(&worker->lock) != 0)
        return NULL;
    take_acks(crew, worker, settle);
    pthread_mutex_unlock(&worker->lock);
    return NULL;
}

void crew_take_ack(struct crew *crew, size_t slot)
{
    take_ack(crew, slot);
}

static int on_news(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct crew *crew = userdata;
    size_t slot;

    /* First: a bit that is set behind the loops below must wake this thread again. */
    workers_heard(crew->workers);
    for (slot = 0; (slot = bit_next(&crew->owes_ack, slot)) < STATS_CHANNELS_MAX; slot++)
        if (bit_take(&crew->owes_ack, slot))
            crew->events->owes_ack(crew->userdata, slot);
    for (slot = 0; (slot = bit_next(&crew->told, slot)) < STATS_CHANNELS_MAX; slot++)
        if (bit_take(&crew->told, slot))
            settle(crew, slot);
    return 0;
}

int crew_new(sd_event *event, struct workers *workers, const struct crew_events *events, void *userdata,
             struct crew **ret)
{
    struct crew *crew = calloc(1, sizeof(*crew));
    int r = 0;

    if (!crew)
        return -ENOMEM;
    crew->workers = workers;
    crew->events = events;
    crew->userdata = userdata;
    if (workers->n > 0) {
        workers_set_handler(workers, on_worker_ready, crew);
        r = sd_event_add_io(event, &crew->source, workers->news, EPOLLIN, on_news, crew);
    }
    if (r < 0) {
        free(crew);
        return r;
    }
    *ret = crew;
    return 0;
}

struct crew *crew_free(struct crew *crew)
{
    if (!crew)
        return NULL;
    sd_event_source_disable_unref(crew->source);
    free(crew);
    return NULL;
}
