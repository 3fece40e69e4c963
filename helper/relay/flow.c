/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/relay/flow.h"

#include <assert.h>
#include <errno.h>
#include <sys/socket.h>

#include "common/cleanup.h"
#include "common/clock.h"

int flow_init(struct flow *flow, enum flow_kind kind, struct ring_pool *pool, size_t capacity)
{
    *flow = (struct flow){.kind = kind, .pipe = -1};
    return ring_init(&flow->ring, pool, capacity);
}

void flow_clear(struct flow *flow)
{
    flow->from = flow->to = NULL;
    fd_closep(&flow->pipe);
    if (flow->grown > 0)
        ring_pool_allow(flow->ring.pool, flow->grown);
    flow->grown = 0;
    ring_clear(&flow->ring);
}

void flow_use_pipe(struct flow *flow, int pipe, size_t size)
{
    assert(flow->kind == FLOW_IN);
    fd_closep(&flow->pipe);
    flow->pipe = pipe;
    flow->pipe_size = size;
}

/* The bytes are to be in the pipe and are in memory, or the other way round. While an end is missing they
 * stay where they are. */
static bool place_changes(const struct flow *flow)
{
    if (flow->ring.pipe >= 0)
        return (flow->from && !carrier_splices(flow->from)) || (flow->to && !carrier_splices(flow->to));
    return flow->pipe >= 0 && flow->from && flow->to && carrier_splices(flow->from) &&
           carrier_splices(flow->to);
}

/* What the ring holds goes out from where it is first, and nothing is read meanwhile: a stream whose bytes
 * are partly in memory and partly in the pipe would need an order between the two. */
static bool place_waits(const struct flow *flow)
{
    return !ring_is_empty(&flow->ring) && place_changes(flow);
}

static void change_place(struct flow *flow)
{
    if (!ring_is_empty(&flow->ring) || !place_changes(flow))
        return;
    if (flow->ring.pipe >= 0)
        flow->pipe = ring_leave_pipe(&flow->ring);
    else
        ring_use_pipe(&flow->ring, fd_steal(&flow->pipe), flow->pipe_size);
}

/* How much may be read now. */
static size_t flow_room(const struct flow *flow)
{
    size_t room = ring_room(&flow->ring);

    if (flow->kind == FLOW_IN && flow->ending && flow->total - flow->ring.end < room)
        room = (size_t)(flow->total - flow->ring.end);
    return room;
}

bool flow_could_read(const struct flow *flow)
{
    return flow->from && flow_room(flow) > 0 && !(flow->kind == FLOW_OUT && flow->ending) &&
           !place_waits(flow);
}

bool flow_is_paced(const struct flow *flow)
{
    return flow_could_read(flow) && flow->pacer && pacer_holds_back(flow->pacer, &flow->share);
}

bool flow_wants_input(const struct flow *flow)
{
    return flow_could_read(flow) && !flow_is_paced(flow);
}

bool flow_wants_output(const struct flow *flow)
{
    return flow->to && (ring_unsent(&flow->ring) > 0 || carrier_holds_output(flow->to));
}

/* FIN follows the last byte, which went out on the peer connection; on the control connection it may overtake
 * that, and the peer's flow waits for the bytes up to the total. */
bool flow_fin_is_due(const struct flow *flow, unsigned connection)
{
    return flow->ending && flow->fin < connection && ring_unsent(&flow->ring) == 0;
}

bool flow_ended(const struct flow *flow)
{
    if (flow->kind == FLOW_OUT)
        return flow->ending && flow->acked == flow->total;
    return flow->ending && flow->ring.begin == flow->total && flow->shut;
}

/* EOF is per direction, and means an end only where QEMU says it; from the peer only FIN does. */
static enum flow_verdict on_eof(struct flow *flow)
{
    if (flow->kind == FLOW_IN)
        return FLOW_FROM_LOST;
    flow->ending = true;
    flow->total = flow->ring.end;
    return FLOW_OK;
}

/* How much to ask for now: nothing where there is no room, no allowance, or nothing to be had. */
static size_t flow_demand(struct flow *flow, uint64_t now)
{
    size_t max, allowed;

    if (!flow_could_read(flow))
        return 0;
    max = flow_room(flow);
    if (!flow->from->readable && !carrier_holds_input(flow->from))
        return 0;
    if (flow->pacer) {
        allowed = pacer_allows(flow->pacer, &flow->share, now);
        max = allowed < max ? allowed : max;
    }
    return max;
}

/* Moves at most so many bytes; 0: what the carrier holds. */
static enum flow_verdict pump_in(struct flow *flow, uint64_t now, size_t most, ssize_t *ret_moved)
{
    size_t max;

    *ret_moved = 0;
    change_place(flow);
    max = flow_demand(flow, now);
    if (most > 0 && max > most)
        max = most;
    if (max == 0)
        return FLOW_OK;
    flow->from->held_only = most == 0;
    *ret_moved = carrier_recv(flow->from, &flow->ring, max);
    if (*ret_moved == 0)
        return on_eof(flow);
    if (*ret_moved < 0 && *ret_moved != -EAGAIN) {
        if (*ret_moved != -ENOMEM && flow->kind == FLOW_OUT && flow->expendable) {
            *ret_moved = 0;
            return on_eof(flow);
        }
        return *ret_moved == -ENOMEM ? FLOW_NO_MEMORY : FLOW_FROM_LOST;
    }
    /* A read that came up short has emptied the socket, unless it was the pipe that had no room. `readable`
     * saves the recv(2) that would only say EAGAIN. */
    if (*ret_moved < 0)
        flow->from->readable = flow->ring.pipe_full;
    else if (flow->ring.pipe < 0 && (size_t)*ret_moved < max && (size_t)*ret_moved < CARRIER_BATCH / 2)
        flow->from->readable = false;
    if (flow->pacer && *ret_moved > 0)
        pacer_take(flow->pacer, &flow->share, (size_t)*ret_moved);
    return FLOW_OK;
}

static enum flow_verdict pump_out(struct flow *flow, ssize_t *ret_moved)
{
    int r;

    *ret_moved = 0;
    if (!flow->to)
        return FLOW_OK;
    if (ring_unsent(&flow->ring) == 0) {
        r = flow->to->ops->flush(flow->to);
        return r < 0 && r != -EAGAIN ? FLOW_TO_LOST : FLOW_OK;
    }
    *ret_moved = carrier_send(flow->to, &flow->ring);
    if (*ret_moved < 0 && *ret_moved != -EAGAIN && flow->kind == FLOW_IN && flow->expendable) {
        *ret_moved = (ssize_t)ring_unsent(&flow->ring);
        flow->dropped += (uint64_t)*ret_moved;
        flow->ring.cursor = flow->ring.end; /* nobody is there to take it */
    }
    if (*ret_moved < 0)
        return *ret_moved == -EAGAIN ? FLOW_OK : FLOW_TO_LOST;
    /* In: QEMU has it, and QEMU does not ask again. Out: only the peer's ACK says that its QEMU has it. */
    if (flow->kind == FLOW_IN || flow->forgetful)
        ring_release(&flow->ring, flow->ring.cursor);
    return FLOW_OK;
}

/* Tells QEMU that no more comes, once it has all. */
static void shut_when_done(struct flow *flow)
{
    if (flow->kind != FLOW_IN || flow->shut || !flow->to || !flow->ending || flow->ring.begin != flow->total)
        return;
    if (flow->dropped == 0)              /* else QEMU has not had all of it */
        shutdown(flow->to->fd, SHUT_WR); /* an error means that QEMU is gone already, which is as good */
    flow->shut = true;
}

/* Out: twice as large, where there is growth left for that. */
static void grow(struct flow *flow)
{
    size_t size = ring_pool_grant(flow->ring.pool, flow->ring.capacity);

    if (size > 0 && ring_grow(&flow->ring, size) < 0) {
        ring_pool_allow(flow->ring.pool, size);
        size = 0;
    }
    flow->grown += size;
}

/* All that was sent is acknowledged some time, and that time says something of the window. */
static void mark_sent(struct flow *flow)
{
    if (flow->kind == FLOW_OUT && !flow->forgetful && flow->ring.cursor > flow->acked)
        window_on_sent(&flow->window, flow->ring.cursor,
                       ring_room(&flow->ring) == 0 && ring_unsent(&flow->ring) == 0, exact_now());
}

enum flow_verdict flow_pump(struct flow *flow, uint64_t now, size_t budget)
{
    size_t moved = 0;
    ssize_t in, out;

    do {
        /* What a carrier holds no poll sees, so it has to be used up now, or when there is room. */
        enum flow_verdict verdict = pump_in(flow, now, moved < budget ? budget - moved : 0, &in);

        if (verdict == FLOW_OK)
            verdict = pump_out(flow, &out);
        if (verdict != FLOW_OK)
            return verdict;
        moved += (size_t)(in > out ? in : out > 0 ? out : 0);
    } while ((in > 0 || out > 0) && (moved < budget || (flow->from && carrier_holds_input(flow->from))));
    shut_when_done(flow);
    mark_sent(flow);
    return FLOW_OK;
}

const char *flow_on_ack(struct flow *flow, uint64_t delivered)
{
    if (delivered < flow->acked)
        return "an ACK of less than was acknowledged before";
    if (delivered > flow->ring.cursor)
        return "an ACK of more than was sent";
    flow->acked = delivered;
    if (flow->forgetful)
        return NULL;
    ring_release(&flow->ring, delivered);
    if (window_on_ack(&flow->window, delivered, flow->ring.capacity, exact_now()))
        grow(flow);
    return NULL;
}

/* The peer may be hostile: a total that changes, or lies before what came, would cut QEMU's stream. */
const char *flow_on_fin(struct flow *flow, uint64_t total, unsigned connection)
{
    if (flow->ending && flow->fin < connection && total == flow->total) {
        flow->fin = connection;
        return NULL;
    }
    if (flow->ending)
        return "a second FIN for a channel";
    if (total < flow->ring.end)
        return "a FIN at less than was sent";
    flow->ending = true;
    flow->total = total;
    flow->fin = connection;
    return NULL;
}

/*
 * The peer's channel hello says `received`: what it has in its ring or its QEMU.
 *
 *     begin = acked       received             cursor                end
 *       | peer's QEMU has   | was lost on the    | was never sent      |
 *       | it, or will       | way: sent again    |                     |
 */
const char *flow_resume(struct flow *flow, uint64_t received)
{
    if (received < flow->ring.begin)
        return "an offset before what was acknowledged";
    if (received > flow->ring.cursor)
        return "an offset beyond what was sent";
    ring_rewind(&flow->ring, received);
    window_forget(&flow->window);
    return NULL;
}
