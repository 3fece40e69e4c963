/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "kernel.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include "qemu.h"

enum { LITTLE = 512 /* bytes, which go in as a whole where there is room */ };

struct conn *conn_new(bool local, uint64_t latency, size_t there, size_t back)
{
    struct conn *conn = world_alloc(sizeof(*conn));

    conn->local = local;
    conn->latency = latency;
    conn->error_at[0] = conn->error_at[1] = NEVER;
    for (int i = 0; i < 2; i++) {
        conn->lanes[i].capacity = i == 0 ? there : back;
        conn->lanes[i].data = world_alloc(conn->lanes[i].capacity);
        conn->lanes[i].shut_at = NEVER;
    }
    TAILQ_INSERT_TAIL(&kernel.conns, conn, entry);
    return conn;
}

/* When what is sent now is there. */
static uint64_t arrival(const struct conn *conn)
{
    uint64_t from = sim.now;

    if (conn->local)
        return from;
    if (kernel.down_until > from)
        from = kernel.down_until;
    return from + conn->latency + pick(conn->latency / 4 + 1);
}

static void lane_arrive(struct lane *lane)
{
    unsigned n = 0;

    while (n < lane->n_flights && lane->flights[n].at <= sim.now)
        lane->arrived = lane->flights[n++].end;
    if (n > 0) {
        lane->n_flights -= n;
        memmove(lane->flights, lane->flights + n, lane->n_flights * sizeof(lane->flights[0]));
    }
}

static void lane_send(struct lane *lane, uint64_t at)
{
    unsigned n = lane->n_flights;

    if (n > 0 && at < lane->flights[n - 1].at)
        at = lane->flights[n - 1].at;
    if (n == FLIGHTS)
        n--;
    lane->flights[n].end = lane->end;
    lane->flights[n].at = at;
    lane->n_flights = n + 1;
}

static void copy_in(struct lane *lane, const uint8_t *data, size_t size)
{
    size_t at = (size_t)(lane->end % lane->capacity), first = lane->capacity - at;

    first = size < first ? size : first;
    memcpy(lane->data + at, data, first);
    memcpy(lane->data, data + first, size - first);
    lane->end += size;
}

static void copy_out(const struct lane *lane, uint8_t *data, size_t size)
{
    size_t at = (size_t)(lane->begin % lane->capacity), first = lane->capacity - at;

    first = size < first ? size : first;
    memcpy(data, lane->data + at, first);
    memcpy(data + first, lane->data, size - first);
}

/* The error that this end has to see now: once, as SO_ERROR is. */
static int take_error(struct conn *conn, int end)
{
    int error = conn->error[end];

    if (error == 0 || conn->error_at[end] > sim.now)
        return 0;
    conn->error[end] = 0;
    conn->cannot[end] = true;
    conn->lanes[!end].shut_at = 0;
    return error;
}

ssize_t conn_write(struct conn *conn, int end, const void *data, size_t size)
{
    struct lane *lane = &conn->lanes[end];
    size_t room = lane->capacity - (size_t)(lane->end - lane->begin);
    int error = take_error(conn, end);

    if (error != 0)
        return -error;
    if (conn->cannot[end] || (conn->local && (conn->closed[!end] || conn->shut_down[!end])))
        return -EPIPE;
    if (conn->closed[!end]) { /* it is told when it comes there */
        if (conn->error[end] == 0) {
            conn->error[end] = ECONNRESET;
            conn->error_at[end] = arrival(conn) + conn->latency;
        }
        return (ssize_t)size;
    }
    if (room == 0)
        return -EAGAIN;
    if (lane->severed)
        return (ssize_t)size;
    size = size < room ? size : room;
    if (size > LITTLE && chance(kernel.short_permille))
        size = 1 + (size_t)pick(size);
    if (conn->qemu && end == 0)
        qemu_receives(conn->qemu, lane->end, data, size);
    copy_in(lane, data, size);
    if (conn->local)
        lane->arrived = lane->end;
    else
        lane_send(lane, arrival(conn));
    return (ssize_t)size;
}

ssize_t conn_read(struct conn *conn, int end, void *data, size_t size, bool peek)
{
    struct lane *lane = &conn->lanes[!end];
    size_t there;
    int error;

    lane_arrive(lane);
    there = (size_t)(lane->arrived - lane->begin);
    if (there > 0 && !conn->shut_down[end]) {
        size = size < there ? size : there;
        if (!peek && chance(kernel.short_permille))
            size = 1 + (size_t)pick(size);
        copy_out(lane, data, size);
        if (!peek)
            lane->begin += size;
        if (conn->qemu && end == 0)
            qemu_is_read(conn->qemu, lane->begin);
        return (ssize_t)size;
    }
    error = take_error(conn, end);
    if (error != 0)
        return -error;
    return lane->shut_at <= sim.now || conn->shut_down[end] ? 0 : -EAGAIN;
}

void conn_shutdown(struct conn *conn, int end, bool reading, bool writing)
{
    struct lane *lane = &conn->lanes[end];

    if (conn->qemu && end == 0 && writing && !reading && !conn->cannot[0])
        qemu_is_told_end(conn->qemu, lane->end);
    if (reading)
        conn->shut_down[end] = true;
    if (!writing || conn->cannot[end])
        return;
    conn->cannot[end] = true;
    if (lane->severed)
        return;
    lane->shut_at = arrival(conn);
    if (lane->n_flights > 0 && lane->shut_at < lane->flights[lane->n_flights - 1].at)
        lane->shut_at = lane->flights[lane->n_flights - 1].at;
}

static void conn_free(struct conn *conn)
{
    TAILQ_REMOVE(&kernel.conns, conn, entry);
    free(conn->lanes[0].data);
    free(conn->lanes[1].data);
    free(conn);
}

void conn_close(struct conn *conn, int end)
{
    struct lane *theirs = &conn->lanes[!end];

    conn_shutdown(conn, end, true, true);
    conn->closed[end] = true;
    if (conn->qemu && end == 0)
        qemu_is_closed(conn->qemu);
    if (conn->closed[!end]) {
        conn_free(conn);
        return;
    }
    /* What was not read resets the connection; and what is on its way then may be lost. */
    if (theirs->begin < theirs->end && conn->error[!end] == 0) {
        conn->error[!end] = ECONNRESET;
        conn->error_at[!end] = arrival(conn);
        if (!conn->local && chance(500)) {
            conn->lanes[end].n_flights = 0;
            conn->lanes[end].end = conn->lanes[end].arrived;
        }
    }
}

void conn_reset(struct conn *conn, uint64_t at, int error)
{
    for (int i = 0; i < 2; i++) {
        struct lane *lane = &conn->lanes[i];

        if (conn->error[i] == 0) {
            conn->error[i] = error;
            conn->error_at[i] = at + (chance(500) ? pick(SECOND / 5) : 0);
        }
        if (chance(700)) { /* what had not arrived never does */
            lane_arrive(lane);
            lane->n_flights = 0;
            lane->end = lane->arrived;
            lane->severed = true;
        }
    }
}

uint32_t conn_poll(struct conn *conn, int end)
{
    struct lane *in = &conn->lanes[!end];
    const struct lane *out = &conn->lanes[end];
    bool error = conn->error[end] != 0 && conn->error_at[end] <= sim.now;
    bool ended = in->shut_at <= sim.now || conn->shut_down[end];
    uint32_t events = 0;

    lane_arrive(in);
    if (in->arrived > in->begin || ended || error)
        events |= EPOLLIN;
    if (out->end - out->begin < out->capacity || conn->cannot[end] || error)
        events |= EPOLLOUT;
    if (error)
        events |= EPOLLERR;
    if (error || (ended && conn->cannot[end]))
        events |= EPOLLHUP;
    return events;
}

static uint64_t later_than_now(uint64_t at)
{
    return at > sim.now ? at : NEVER;
}

uint64_t conn_next(const struct conn *conn)
{
    uint64_t next = NEVER;

    for (int i = 0; i < 2; i++) {
        for (unsigned j = 0; j < conn->lanes[i].n_flights; j++)
            next = earlier(next, later_than_now(conn->lanes[i].flights[j].at));
        next = earlier(next, later_than_now(conn->lanes[i].shut_at));
        if (conn->error[i] != 0)
            next = earlier(next, later_than_now(conn->error_at[i]));
    }
    return next;
}

static uint64_t delayed(uint64_t at, uint64_t until)
{
    return at > sim.now && at < until ? until : at;
}

void conn_delay(struct conn *conn, uint64_t until)
{
    for (int i = 0; i < 2; i++) {
        struct lane *lane = &conn->lanes[i];

        lane_arrive(lane);
        for (unsigned j = 0; j < lane->n_flights; j++)
            lane->flights[j].at = delayed(lane->flights[j].at, until);
        lane->shut_at = delayed(lane->shut_at, until);
        conn->error_at[i] = delayed(conn->error_at[i], until);
    }
}
