/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "session.h"

#include <sys/epoll.h>
#include <time.h>

#include "common/cleanup.h"

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
static struct worker *owner_of(const struct channel *channel)
{
    return __atomic_load_n(&channel->session->owners[slot_of(channel)], __ATOMIC_SEQ_CST);
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

int channel_share(struct channel *channel)
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
    return r < 0 ? r : channel_attach(channel, channel->carrier, NULL);
}

void channel_take_back(struct channel *channel)
{
    struct worker *worker = owner_of(channel);

    if (worker)
        worker->n--;
    set_owner(channel, NULL);
}

/* ---- In a worker's thread ---- */

static uint64_t now_usec(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void tell(struct worker *worker, struct session *session, size_t slot)
{
    __atomic_fetch_or(&session->news[slot / 64], (uint64_t)1 << slot % 64, __ATOMIC_SEQ_CST);
    workers_tell(worker->workers);
}

static void on_worker_ready(struct worker *worker, uint64_t tag, uint32_t revents, void *userdata)
{
    struct session *session = userdata;
    size_t slot = (size_t)(tag / 2);
    struct channel *channel = &session->channels[slot];
    struct carrier *carrier;

    /* The poll was before the lock: whose the slot is now has to be asked first of all. */
    if (__atomic_load_n(&session->owners[slot], __ATOMIC_SEQ_CST) != worker)
        return;
    carrier = tag % 2 ? channel->carrier : channel->qemu;
    if (!carrier || channel->verdict != FLOW_OK)
        return;
    carrier_polled(carrier, revents);
    channel_move(channel, now_usec(), FLOW_TURN);
    if (channel_has_news(channel))
        tell(worker, session, slot);
}

/* ---- In the first thread ---- */

static int on_news(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct session *session = userdata;

    (void)source;
    (void)fd;
    (void)revents;
    workers_heard(session->workers);
    for (size_t i = 0; i < sizeof(session->news) / sizeof(session->news[0]); i++) {
        uint64_t news = __atomic_exchange_n(&session->news[i], 0, __ATOMIC_SEQ_CST);

        for (size_t bit = 0; news != 0; bit++, news >>= 1)
            if (news & 1)
                channel_settle(&session->channels[64 * i + bit]);
    }
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
