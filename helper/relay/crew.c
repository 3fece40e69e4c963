/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/session/session.h"

#include <sys/epoll.h>

#include "common/cleanup.h"
#include "common/clock.h"

/*
 * The channels whose bytes another thread moves. A migration's first channel stays with the first thread,
 * which so has no second to wait for where there is only one; those that are opened beside it go to workers,
 * for good. A worker only moves bytes. What comes of that, an acknowledgement that is due, an end, a
 * connection that broke, it tells the first thread, and that one decides.
 */

static size_t slot_of(const struct channel *channel)
{
    return (size_t)(channel - channel->session->channels);
}

/* Only the first thread changes it, with the worker's lock held. */
static struct worker *owner_at(const struct session *session, size_t slot)
{
    return __atomic_load_n(&session->owners[slot], __ATOMIC_SEQ_CST);
}

static struct worker *owner_of(const struct channel *channel)
{
    return owner_at(channel->session, slot_of(channel));
}

struct worker *channel_lock(const struct channel *channel)
{
    return worker_lock(channel->session ? owner_of(channel) : NULL);
}

bool channel_has_worker(const struct channel *channel)
{
    return owner_of(channel) != NULL;
}

static void set_owner(struct channel *channel, struct worker *worker)
{
    __atomic_store_n(&channel->session->owners[slot_of(channel)], worker, __ATOMIC_SEQ_CST);
}

int channel_attach(struct channel *channel, struct carrier *carrier, carrier_ready_t ready)
{
    struct worker *worker = owner_of(channel);

    if (worker)
        return carrier_attach_worker(carrier, worker,
                                     2 * (uint64_t)slot_of(channel) + (carrier == channel->carrier));
    return carrier_attach(carrier, channel->session->event, ready, channel);
}

/* ---- In a worker's thread ---- */

static void bit_set(struct channel_bits *bits, size_t slot)
{
    __atomic_fetch_or(&bits->words[slot / 64], (uint64_t)1 << slot % 64, __ATOMIC_SEQ_CST);
}

/* Whether it was set; it is not any more. */
static bool bit_take(struct channel_bits *bits, size_t slot)
{
    uint64_t bit = (uint64_t)1 << slot % 64;

    return (__atomic_load_n(&bits->words[slot / 64], __ATOMIC_SEQ_CST) & bit) &&
           (__atomic_fetch_and(&bits->words[slot / 64], ~bit, __ATOMIC_SEQ_CST) & bit);
}

/* The first slot from there on whose bit is set; STATS_CHANNELS_MAX when there is none. */
static size_t bit_next(const struct channel_bits *bits, size_t slot)
{
    while (slot < STATS_CHANNELS_MAX) {
        uint64_t word = __atomic_load_n(&bits->words[slot / 64], __ATOMIC_SEQ_CST) >> slot % 64;

        if (word != 0)
            return slot + (size_t)__builtin_ctzll(word);
        slot = (slot / 64 + 1) * 64;
    }
    return slot;
}

/* Moves on with the lock held, and tells what came of it. */
static void work(struct worker *worker, struct channel *channel)
{
    struct session *session = channel->session;

    if (channel->verdict == FLOW_OK)
        channel_move(channel, exact_now(), FLOW_TURN);
    if (channel_has_news(channel))
        bit_set(&session->news, slot_of(channel));
    else if (channel_owes_ack(channel))
        bit_set(&session->owing, slot_of(channel));
    else
        return;
    workers_tell(worker->workers);
}

bool channel_take_ack(struct channel *channel)
{
    if (!bit_take(&channel->session->acked, slot_of(channel)))
        return false;
    if (!channel->lie)
        channel->lie = flow_on_ack(&channel->out, __atomic_load_n(&channel->ack, __ATOMIC_SEQ_CST));
    return true;
}

/* What the peer has acknowledged of this worker's channels, with its lock held; then() goes on with each. */
static void take_acks(struct session *session, struct worker *worker,
                      void (*then)(struct worker *worker, struct channel *channel))
{
    for (size_t slot = 0; (slot = bit_next(&session->acked, slot)) < STATS_CHANNELS_MAX; slot++) {
        struct channel *channel = &session->channels[slot];

        if (owner_at(session, slot) == worker && channel_take_ack(channel))
            then(worker, channel);
    }
}

static bool has_acks(struct session *session, const struct worker *worker)
{
    size_t slot = 0;

    /* What the first thread says while this one has the lock, it says no second time. See channel_on_ack().
     */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    while ((slot = bit_next(&session->acked, slot)) < STATS_CHANNELS_MAX && owner_at(session, slot) != worker)
        slot++;
    return slot < STATS_CHANNELS_MAX;
}

static void on_worker_ready(struct worker *worker, uint64_t tag, uint32_t revents, void *userdata)
{
    struct session *session = userdata;
    size_t slot = (size_t)(tag / 2);
    struct channel *channel = &session->channels[slot];

    worker_lock_own(worker);
    /* The poll was before the lock: whose the slot is now has to be asked first of all. */
    if (owner_at(session, slot) == worker) {
        struct carrier *carrier = tag % 2 ? channel->carrier : channel->qemu;

        if (carrier)
            carrier_polled(carrier, revents);
        work(worker, channel);
    }
    pthread_mutex_unlock(&worker->lock);
    while (has_acks(session, worker)) {
        worker_lock_own(worker);
        take_acks(session, worker, work);
        pthread_mutex_unlock(&worker->lock);
    }
}

/* ---- In the first thread ---- */

void channel_take_back(struct channel *channel)
{
    struct session *session = channel->session;
    struct worker *worker = owner_of(channel);

    if (worker)
        worker->n--;
    set_owner(channel, NULL);
    /* What was told of it is not of the next channel that has the slot. */
    bit_take(&session->news, slot_of(channel));
    bit_take(&session->owing, slot_of(channel));
    bit_take(&session->acked, slot_of(channel));
}

int channel_share(struct channel *channel, carrier_ready_t ready)
{
    struct session *session = channel->session;
    struct worker *worker = workers_pick(session->workers);
    bool alone = true;
    int r;

    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++) {
        const struct channel *other = &session->channels[i];

        alone = alone && (other == channel || other->stage != CHANNEL_OPEN || owner_of(other));
    }
    if (alone || !worker || owner_of(channel))
        return 0;
    _cleanup_(worker_unlockp) struct worker *locked = worker_lock(worker);
    worker->n++;
    set_owner(channel, worker);
    r = channel_attach(channel, channel->qemu, NULL);
    if (r >= 0)
        r = channel_attach(channel, channel->carrier, NULL);
    if (r >= 0)
        return 0;
    /* The first thread goes on with it, then. */
    channel_take_back(channel);
    r = channel_attach(channel, channel->qemu, ready);
    return r < 0 ? r : channel_attach(channel, channel->carrier, ready);
}

static void settle(struct worker *worker, struct channel *channel)
{
    channel_settle(channel);
}

void channel_on_ack(struct channel *channel, uint64_t delivered)
{
    struct session *session = channel->session;
    struct worker *worker = owner_of(channel);

    if (delivered < channel->ack) { /* which the worker may never have seen */
        control_lie(session, channel->number, "an ACK of less than was acknowledged before");
        return;
    }
    __atomic_store_n(&channel->ack, delivered, __ATOMIC_SEQ_CST);
    bit_set(&session->acked, slot_of(channel));
    /* Whoever has the lock looks again once he has given it back; who encrypts is not waited for. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    if (pthread_mutex_trylock(&worker->lock) != 0)
        return;
    take_acks(session, worker, settle);
    pthread_mutex_unlock(&worker->lock);
}

static int on_news(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct session *session = userdata;
    size_t slot;

    workers_heard(session->workers);
    for (slot = 0; (slot = bit_next(&session->owing, slot)) < STATS_CHANNELS_MAX; slot++)
        if (bit_take(&session->owing, slot) && !session_halted(session))
            channel_ack_in_time(&session->channels[slot]);
    for (slot = 0; (slot = bit_next(&session->news, slot)) < STATS_CHANNELS_MAX; slot++)
        if (bit_take(&session->news, slot))
            channel_settle(&session->channels[slot]);
    return 0;
}

int channel_listen_to_workers(struct session *session)
{
    if (session->workers->n == 0)
        return 0;
    workers_set_handler(session->workers, on_worker_ready, session);
    return sd_event_add_io(session->event, &session->news_source, session->workers->news, EPOLLIN, on_news,
                           session);
}
