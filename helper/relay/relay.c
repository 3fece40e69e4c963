/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/relay/relay.h"

#include <sys/epoll.h>

#include "common/cleanup.h"

/* What a poll of the property Channels reads. */
static void publish(struct relay *relay)
{
    /* Both at QEMU's side of the ring: what was taken from QEMU, and what QEMU has. */
    uint64_t sent = relay->out.ring.end, received = relay->in.ring.begin;

    STATS_ADD(relay->page->sent, sent - relay->sent);
    STATS_ADD(relay->page->received, received - relay->received);
    relay->sent = sent;
    __atomic_store_n(&relay->received, received, __ATOMIC_SEQ_CST);
    STATS_WRITE(relay->entry->sent, sent);
    STATS_WRITE(relay->entry->received, received);
}

void relay_set_state(struct relay *relay, enum stats_channel_state state)
{
    STATS_WRITE(relay->entry->state, (uint16_t)state);
}

int relay_init(struct relay *relay, const struct relay_options *options, uint32_t number, uint32_t stream)
{
    struct stats_channel *entry = &options->page->channels[options->slot];
    int r;

    *relay = (struct relay){.page = options->page, .entry = entry};
    r = flow_init(&relay->out, FLOW_OUT, options->pool, options->window);
    if (r < 0)
        return r;
    r = flow_init(&relay->in, FLOW_IN, options->pool, FLOW_BUFFER);
    if (r < 0) {
        flow_clear(&relay->out);
        return r;
    }
    relay->out.pacer = options->pacer;
    relay->out.forgetful = options->forgetful;
    relay->out.expendable = relay->in.expendable = options->expendable;
    STATS_WRITE(entry->number, number);
    STATS_WRITE(entry->stream, (uint16_t)stream);
    publish(relay);
    relay_set_state(relay, STATS_CHANNEL_OPENING);
    if (STATS_READ(relay->page->n_channels) <= options->slot)
        STATS_WRITE(relay->page->n_channels, (uint32_t)options->slot + 1);
    return 0;
}

void relay_close(struct relay *relay, enum stats_channel_state state)
{
    publish(relay); /* the last numbers, before the rings go */
    relay_set_state(relay, state);
    relay->qemu = carrier_free(relay->qemu);
    relay->peer = carrier_free(relay->peer);
    flow_clear(&relay->out);
    flow_clear(&relay->in);
}

void relay_quit(struct relay *relay)
{
    publish(relay);
    relay_set_state(relay, STATS_CHANNEL_LOST);
    relay->qemu = carrier_free(relay->qemu);
    relay->out.from = relay->in.to = NULL;
    if (relay->peer)
        carrier_watch(relay->peer, 0);
}

/*
 *            out:  from = qemu  ->  ring  ->  to = peer
 *            in:   to = qemu    <-  ring  <-  from = peer
 *
 * out.from stays NULL until there is a first peer connection: a destination's QEMU is not read before its
 * source is there, and what a source's QEMU says stays in its socket. After a loss it stays set, and the ring
 * fills.
 */
void relay_set_qemu(struct relay *relay, struct carrier *qemu)
{
    relay->qemu = qemu;
    if (relay->peer)
        relay->out.from = qemu;
    relay->in.to = qemu;
}

void relay_set_peer(struct relay *relay, struct carrier *peer, unsigned connection)
{
    relay->peer = peer;
    relay->connection = connection;
    relay->out.from = relay->qemu;
    relay->out.to = peer;
    relay->in.from = peer;
}

void relay_use_pipe(struct relay *relay, int pipe, size_t size)
{
    if (relay->in.ring.pipe < 0 && !relay->in.expendable)
        flow_use_pipe(&relay->in, pipe, size);
    else
        fd_closep(&pipe);
}

enum relay_loss relay_lost(const struct relay *relay)
{
    if (relay->verdict == FLOW_OK)
        return RELAY_NOTHING_LOST;
    if (relay->verdict == FLOW_NO_MEMORY)
        return RELAY_NO_MEMORY;
    return (relay->failed->kind == FLOW_OUT) == (relay->verdict == FLOW_FROM_LOST) ? RELAY_QEMU_LOST
                                                                                   : RELAY_PEER_LOST;
}

bool relay_break_off(struct relay *relay)
{
    if (relay->in.ring.pipe >= 0)
        return false; /* what is in there would have to be read */
    relay->in.expendable = relay->out.expendable = true;
    relay->verdict = FLOW_OK;
    return true;
}

/* The peer connection is lost, with what was in it; QEMU's stays, and goes on as long as a ring has bytes for
 * it or room. A verdict of the peer's is settled by this; one of QEMU's is not, and must still be told. */
void relay_detach(struct relay *relay)
{
    relay->peer = carrier_free(relay->peer);
    relay->out.to = relay->in.from = NULL;
    if (relay_lost(relay) == RELAY_PEER_LOST)
        relay->verdict = FLOW_OK;
    relay_watch(relay);
}

void relay_watch(struct relay *relay)
{
    bool moves = relay->verdict == FLOW_OK;
    uint32_t qemu = 0, peer = 0;

    /* Looked at once: another thread may fill the bucket at any time. */
    relay->paced = moves && flow_is_paced(&relay->out);
    if (moves && !relay->paced && flow_could_read(&relay->out))
        qemu |= EPOLLIN;
    if (moves && flow_wants_output(&relay->out))
        peer |= EPOLLOUT;
    if (moves && flow_wants_input(&relay->in))
        peer |= EPOLLIN;
    if (moves && flow_wants_output(&relay->in))
        qemu |= EPOLLOUT;
    if (relay->qemu)
        carrier_watch(relay->qemu, qemu);
    if (relay->peer)
        carrier_watch(relay->peer, peer);
}

void relay_move(struct relay *relay, uint64_t now, size_t budget)
{
    struct flow *flows[] = {&relay->in, &relay->out}; /* in first: page requests and answers to them */

    for (size_t i = 0; i < 2 && relay->verdict == FLOW_OK; i++) {
        relay->failed = flows[i];
        relay->verdict = flow_pump(flows[i], now, budget);
    }
    publish(relay);
    relay_watch(relay);
}

bool relay_has_news(const struct relay *relay)
{
    return relay->verdict != FLOW_OK || relay->violation || relay->paced || flow_ended(&relay->in) ||
           flow_ended(&relay->out) || flow_fin_is_due(&relay->out, relay->connection);
}

bool relay_owes_ack(const struct relay *relay, bool timer_runs)
{
    uint64_t owed = relay_owed(relay);

    return owed >= FLOW_ACK_STEP || (owed > 0 && !timer_runs);
}

uint64_t relay_tell(struct relay *relay)
{
    uint64_t delivered = relay_delivered(relay);

    __atomic_store_n(&relay->told, delivered, __ATOMIC_SEQ_CST);
    return delivered;
}

bool relay_tell_end(struct relay *relay, uint64_t *ret_total)
{
    if (!relay->peer || !flow_fin_is_due(&relay->out, relay->connection))
        return false;
    relay->out.fin = relay->connection;
    *ret_total = relay->out.total;
    return true;
}

/* Also where the last ACK has come but the worker has yet to take it: the peer may say CLOSE right behind
 * that ACK, and the first thread must not take this for a lie. */
static bool all_is_acknowledged(const struct relay *relay)
{
    const struct flow *out = &relay->out;

    return flow_ended(out) ||
           (out->ending && out->ring.cursor == out->total && relay->ack == out->total && !relay->violation);
}

bool relay_ended(const struct relay *relay)
{
    return flow_ended(&relay->in) && all_is_acknowledged(relay);
}

const char *relay_leave_ack(struct relay *relay, uint64_t delivered)
{
    if (delivered < relay->ack) /* which the worker may never have seen */
        return "an ACK of less than was acknowledged before";
    __atomic_store_n(&relay->ack, delivered, __ATOMIC_SEQ_CST);
    return NULL;
}

void relay_take_ack(struct relay *relay)
{
    if (!relay->violation)
        relay->violation = flow_on_ack(&relay->out, __atomic_load_n(&relay->ack, __ATOMIC_SEQ_CST));
}
