/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "network.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "broker.h"
#include "helper/protocol/greeting.h"
#include "side.h"
#include "world.h"

enum { ARRIVALS = 64, STRANGERS = 8, DEADLINE = 10000000 };

/* A connection that the gate has, end 1 of it. */
struct arrival {
    struct conn *conn;
    uint8_t preamble[PREAMBLE_SIZE];
    size_t n;
    uint64_t since;
    bool rejected; /* it may read that */
};

static struct {
    struct arrival arrivals[ARRIVALS];
    size_t n_arrivals;
    struct {
        struct conn *conn; /* end 0 */
        uint64_t until;
    } strangers[STRANGERS];
    size_t n_strangers;
    uint64_t down_until; /* no connection can be made */
} network;

void network_begin(void)
{
    network.n_arrivals = network.n_strangers = 0;
    network.down_until = 0;
}

static struct conn *make(void)
{
    static const size_t sizes[] = {4096, 4096, 8192, 16384, 65536};

    uint64_t latency = 1 + spread(chance(100) ? SECOND / 5 : 300);
    struct arrival *arrival;

    if (network.n_arrivals == ARRIVALS)
        return NULL;
    arrival = &network.arrivals[network.n_arrivals++];
    *arrival = (struct arrival){.since = sim.now};
    arrival->conn = conn_new(false, latency, sizes[pick(5)], sizes[pick(5)]);
    return arrival->conn;
}

struct file *network_dial(void)
{
    struct conn *conn = NULL;

    if (network.down_until <= sim.now && kernel.down_until <= sim.now)
        conn = make();
    return conn ? file_of_conn(conn, 0) : NULL;
}

void network_stranger(void)
{
    struct preamble preamble = {.kind = PEER_CONTROL + (enum peer_kind)pick(3), .id = plan.start.id};
    uint8_t buf[PREAMBLE_SIZE], rubbish[128];
    struct conn *conn;

    if (network.n_strangers == STRANGERS || !(conn = make()))
        return;
    tell("a stranger connects");
    preamble_encode(&preamble, buf);
    if (chance(800))
        conn_write(conn, 0, buf, sizeof(buf));
    for (size_t i = 0; i < sizeof(rubbish); i++)
        rubbish[i] = (uint8_t)pick(256);
    if (chance(700))
        conn_write(conn, 0, rubbish, (size_t)pick(sizeof(rubbish)));
    network.strangers[network.n_strangers].until = sim.now + spread(20 * SECOND);
    network.strangers[network.n_strangers++].conn = conn;
}

/* ---- The gate ---- */

static void forget(struct arrival *arrival)
{
    *arrival = network.arrivals[--network.n_arrivals];
}

static void drop(struct arrival *arrival)
{
    conn_close(arrival->conn, 1);
    forget(arrival);
}

/* What the broker of the destination says of it: none, or why not. */
static enum vf_error rejection(uint32_t kind)
{
    const struct broker *broker = &brokers[DESTINATION];

    if (!broker->has_result && broker->fd >= 0 && !sides[DESTINATION].ends.helper_gone)
        return VF_ERROR_NONE;
    if (broker->error == VF_ERROR_CANCELLED && kind == PEER_RESUME)
        return VF_ERROR_CANCELLED;
    return VF_ERROR_TICKET_USED;
}

static void hand_over(struct arrival *arrival)
{
    union message m = {.peer = {.shared = chance(50)}};
    enum message_type type = MESSAGE_PEER;
    struct preamble preamble;
    uint8_t buf[REJECTION_SIZE];
    enum vf_error error;
    uint64_t latency;

    if (preamble_decode(arrival->preamble, &preamble) != VERDICT_OK) {
        drop(arrival);
        return;
    }
    error = rejection(preamble.kind);
    m.peer.kind = preamble.kind;
    tell("a connection of kind %u arrives: %s", preamble.kind, error ? "rejected" : "accepted");
    if (error == VF_ERROR_NONE) {
        latency = arrival->conn->latency;
        if (preamble.mark.number != 0) {
            m.peer_marked.mark = preamble.mark;
            type = MESSAGE_PEER_MARKED;
        }
        broker_sends(&brokers[DESTINATION], type, &m, file_of_conn(arrival->conn, 1));
        if (preamble.kind == PEER_RESUME && chance(600)) /* QEMU, too, while both sides greet each other */
            broker_hurries(&brokers[DESTINATION], 8 * latency);
        forget(arrival);
        return;
    }
    rejection_encode(error, buf);
    arrival->rejected = true;
    if (conn_write(arrival->conn, 1, buf, sizeof(buf)) < (ssize_t)sizeof(buf))
        drop(arrival);
    else
        conn_shutdown(arrival->conn, 1, false, true);
}

static bool is_due(const struct arrival *arrival)
{
    if (arrival->n == PREAMBLE_SIZE &&
        !arrival->rejected) /* it waits for the broker, which the gate survives */
        return broker_is_up(&brokers[DESTINATION]) || brokers[DESTINATION].fd < 0;
    return arrival->since + DEADLINE <= sim.now || (conn_poll(arrival->conn, 1) & EPOLLIN);
}

static void turn(struct arrival *arrival)
{
    uint8_t drain[512];
    ssize_t n;

    if (arrival->n == PREAMBLE_SIZE && !arrival->rejected) {
        hand_over(arrival);
        return;
    }
    if (arrival->rejected)
        n = conn_read(arrival->conn, 1, drain, sizeof(drain), false);
    else
        n = conn_read(arrival->conn, 1, arrival->preamble + arrival->n, PREAMBLE_SIZE - arrival->n, false);
    if (n > 0 && !arrival->rejected)
        arrival->n += (size_t)n;
    else if (n == 0 || (n < 0 && n != -EAGAIN) || arrival->since + DEADLINE <= sim.now)
        drop(arrival);
}

bool network_is_due(void)
{
    for (size_t i = 0; i < network.n_arrivals; i++)
        if (is_due(&network.arrivals[i]))
            return true;
    for (size_t i = 0; i < network.n_strangers; i++)
        if (network.strangers[i].until <= sim.now)
            return true;
    return false;
}

void network_turn(void)
{
    size_t first = (size_t)pick(network.n_arrivals);

    for (size_t i = 0; i < network.n_strangers; i++)
        if (network.strangers[i].until <= sim.now) {
            conn_close(network.strangers[i].conn, 0);
            network.strangers[i] = network.strangers[--network.n_strangers];
            return;
        }
    for (size_t i = 0; i < network.n_arrivals; i++)
        if (is_due(&network.arrivals[(first + i) % network.n_arrivals])) {
            turn(&network.arrivals[(first + i) % network.n_arrivals]);
            return;
        }
}

uint64_t network_next(void)
{
    uint64_t next = NEVER;

    for (size_t i = 0; i < network.n_arrivals; i++)
        if (network.arrivals[i].since + DEADLINE > sim.now)
            next = earlier(next, network.arrivals[i].since + DEADLINE);
    for (size_t i = 0; i < network.n_strangers; i++)
        next = earlier(next, network.strangers[i].until);
    return next;
}

/* ---- What goes wrong ---- */

void network_cut(bool all, uint64_t usec)
{
    static const int errors[] = {ECONNRESET, ETIMEDOUT, EHOSTUNREACH};
    struct conn *conn;
    size_t n = 0;
    uint64_t which;

    TAILQ_FOREACH(conn, &kernel.conns, entry)
    {
        n += !conn->local;
    }
    which = pick(n);
    tell("the network: %s connections break, of %zu, for %ju µs", all ? "all" : "one of the", n,
         (uintmax_t)usec);
    TAILQ_FOREACH(conn, &kernel.conns, entry)
    {
        if (!conn->local && (all || which-- == 0))
            conn_reset(conn, sim.now + (chance(300) ? spread(SECOND / 2) : 0), errors[pick(3)]);
    }
    if (sim.now + usec > network.down_until)
        network.down_until = sim.now + usec;
}

void network_stall(uint64_t usec)
{
    struct conn *conn;

    tell("the network: nothing gets through for %ju µs", (uintmax_t)usec);
    kernel.down_until = sim.now + usec;
    TAILQ_FOREACH(conn, &kernel.conns, entry)
    {
        if (!conn->local)
            conn_delay(conn, kernel.down_until);
    }
}

void network_end(void)
{
    while (network.n_arrivals > 0)
        drop(&network.arrivals[0]);
    for (size_t i = 0; i < network.n_strangers; i++)
        conn_close(network.strangers[i].conn, 0);
}
