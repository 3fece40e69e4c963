/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A property of the two flows of a channel's direction together, over random schedules: whatever is sent,
 * acknowledged, cut off, reconnected in whatever order, said twice or claimed by a stale connection, every
 * byte arrives once and in order, and none is kept beyond the window. The network is a queue in memory; all
 * else is what ships.
 *
 * VMFERRY_SCHEDULES=N runs so many; VMFERRY_SEED=N begins with that one, so that a failure can be had again.
 */
#include "test-util.h"

#include "helper/relay/flow.h"

enum {
    WINDOW = 700,
    BUFFER = 300,
    WIRE = 400, /* bytes that the network holds, at most */
    FRAMES = 64,
    STEPS = 160,
#if defined(__SANITIZE_ADDRESS__)
    SCHEDULES = 20000,
#elif defined(__SANITIZE_THREAD__)
    SCHEDULES = 2000,
#else
    SCHEDULES = 100000,
#endif
    SCHEDULES_IN_VALGRIND =
        5000, /* it is there for what is read before it is written; a schedule takes 1 ms */
};

struct frame_model {
    bool fin; /* else an acknowledgement */
    uint64_t offset;
};

struct model {
    uint64_t random;
    struct ring_pool pool;
    /* QEMU at the source */
    uint64_t made, wanted; /* bytes that it has written, and will before it ends */
    bool eof;
    /* the network: one connection for the stream, and the control connection each way */
    uint8_t wire[WIRE];
    size_t n_wire;
    struct frame_model to_sink[FRAMES], to_source[FRAMES];
    size_t n_to_sink, n_to_source;
    bool connected;
    unsigned connection; /* counts them */
    uint64_t told;       /* the last acknowledgement */
    /* QEMU at the destination */
    uint64_t got;
    bool wrong;
    struct flow out, in;
    struct carrier qemu, peer_out, peer_in, sink;
};

static uint64_t next_random(struct model *m)
{
    m->random ^= m->random << 13;
    m->random ^= m->random >> 7;
    m->random ^= m->random << 17;
    return m->random;
}

static size_t below(struct model *m, size_t n)
{
    return (size_t)(next_random(m) % n);
}

static uint8_t byte_at(uint64_t offset)
{
    return (uint8_t)((offset * 2654435761U) >> 13);
}

static struct model *model_of(struct carrier *carrier)
{
    return carrier->userdata;
}

/* QEMU at the source: a part of what it has written, or its end. */
static ssize_t qemu_recv(struct carrier *carrier, struct ring *ring, size_t max)
{
    struct model *m = model_of(carrier);
    uint64_t left = m->made - ring->end;
    size_t n = max < left ? max : (size_t)left;
    uint8_t data[WINDOW];

    if (left == 0)
        return m->eof ? 0 : -EAGAIN;
    n = 1 + below(m, n);
    for (size_t i = 0; i < n; i++)
        data[i] = byte_at(ring->end + i);
    assert_int_equal(ring_append(ring, data, n), 0);
    return (ssize_t)n;
}

static ssize_t wire_send(struct carrier *carrier, struct ring *ring)
{
    struct model *m = model_of(carrier);
    size_t room = WIRE - m->n_wire, unsent = ring_unsent(ring), n = room < unsent ? room : unsent;

    if (n == 0)
        return -EAGAIN;
    n = 1 + below(m, n);
    assert_int_equal(ring_copy(ring, m->wire + m->n_wire, n), n);
    m->n_wire += n;
    ring_advance(ring, n);
    return (ssize_t)n;
}

static ssize_t wire_recv(struct carrier *carrier, struct ring *ring, size_t max)
{
    struct model *m = model_of(carrier);
    size_t n = max < m->n_wire ? max : m->n_wire;

    if (n == 0)
        return -EAGAIN;
    n = 1 + below(m, n);
    assert_int_equal(ring_append(ring, m->wire, n), 0);
    memmove(m->wire, m->wire + n, m->n_wire - n);
    m->n_wire -= n;
    return (ssize_t)n;
}

/* QEMU at the destination: takes some, or nothing now. */
static ssize_t sink_send(struct carrier *carrier, struct ring *ring)
{
    struct model *m = model_of(carrier);
    uint8_t data[BUFFER];
    size_t n = ring_copy(ring, data, sizeof(data));

    if (n == 0 || below(m, 4) == 0)
        return -EAGAIN;
    n = 1 + below(m, n);
    for (size_t i = 0; i < n; i++)
        m->wrong = m->wrong || data[i] != byte_at(m->got + i);
    m->got += n;
    ring_advance(ring, n);
    return (ssize_t)n;
}

static int nothing_to_flush(struct carrier *carrier)
{
    (void)carrier;
    return 0;
}

static bool holds_nothing(const struct carrier *carrier)
{
    (void)carrier;
    return false;
}

#define OPS(recv_, send_)                                                                          \
    {                                                                                              \
        .recv = (recv_), .send = (send_), .flush = nothing_to_flush, .holds_input = holds_nothing, \
        .holds_output = holds_nothing,                                                             \
    }

static const struct carrier_ops qemu_ops = OPS(qemu_recv, NULL), out_ops = OPS(NULL, wire_send),
                                in_ops = OPS(wire_recv, NULL), sink_ops = OPS(NULL, sink_send);

static void say(struct frame_model *queue, size_t *n, bool fin, uint64_t offset)
{
    if (*n < FRAMES)
        queue[(*n)++] = (struct frame_model){fin, offset};
}

/* What the helper says after each pump, helper/channel/channel.c: tell(). */
static void tell(struct model *m)
{
    if (!m->connected)
        return;
    if (flow_fin_is_due(&m->out, m->connection)) {
        m->out.fin = m->connection;
        say(m->to_sink, &m->n_to_sink, true, m->out.total);
    }
    if (m->in.ring.begin != m->told && m->n_to_source < FRAMES / 2) {
        m->told = m->in.ring.begin;
        say(m->to_source, &m->n_to_source, false, m->told);
    }
}

/* The next frame of a control connection arrives. */
static void hear(struct model *m, struct frame_model *queue, size_t *n, struct flow *flow)
{
    if (!m->connected || *n == 0)
        return;
    assert_null(queue[0].fin ? flow_on_fin(flow, queue[0].offset, m->connection)
                             : flow_on_ack(flow, queue[0].offset));
    memmove(queue, queue + 1, --*n * sizeof(*queue));
}

/* All connections go, with what was on the way; helper/relay/relay.c: relay_detach(). */
static void cut(struct model *m)
{
    m->connected = false;
    m->n_wire = m->n_to_sink = m->n_to_source = 0;
    m->out.to = m->in.from = NULL;
}

/* New ones; the channel hello says from where, helper/peer/peer.c: on_channel_hello(). */
static void reconnect(struct model *m)
{
    assert_null(flow_resume(&m->out, m->in.ring.end));
    m->out.to = &m->peer_out;
    m->in.from = &m->peer_in;
    m->connected = true;
    m->connection++;
    say(m->to_source, &m->n_to_source, false, m->told = m->in.ring.begin); /* said again */
}

/* Offsets that cannot be: refused, and nothing changes. */
static void lie(struct model *m)
{
    struct ring before = m->out.ring;

    if (before.begin > 0)
        assert_non_null(flow_resume(&m->out, before.begin - 1 - below(m, (size_t)before.begin)));
    assert_non_null(flow_resume(&m->out, before.cursor + 1 + below(m, 1000)));
    assert_non_null(flow_on_ack(&m->out, before.cursor + 1 + below(m, 1000)));
    if (m->in.ending)
        assert_non_null(flow_on_fin(&m->in, m->in.total + 1, m->connection));
    assert_memory_equal(&before, &m->out.ring, sizeof(before));
}

static void pump(struct flow *flow)
{
    if (flow->from)
        flow->from->readable = true;
    assert_int_equal(flow_pump(flow, 0, FLOW_BUDGET), FLOW_OK);
}

static void step(struct model *m)
{
    switch (below(m, 16)) {
    case 0:
    case 1:
        if (m->made < m->wanted)
            m->made += 1 + below(m, (size_t)(m->wanted - m->made));
        m->eof = m->made == m->wanted;
        break;
    case 2:
        if (below(m, 3) == 0)
            cut(m);
        break;
    case 3:
    case 4:
        if (!m->connected)
            reconnect(m);
        break;
    case 5:
        lie(m);
        break;
    case 6:
    case 7:
    case 8:
        hear(m, m->to_source, &m->n_to_source, &m->out);
        break;
    case 9:
    case 10:
        hear(m, m->to_sink, &m->n_to_sink, &m->in);
        break;
    case 11:
    case 12:
    case 13:
        pump(&m->out);
        break;
    default:
        pump(&m->in);
        break;
    }
    tell(m);
    assert_true(m->out.ring.end - m->out.ring.begin <= WINDOW);
    assert_true(m->in.ring.end - m->in.ring.begin <= BUFFER);
    assert_true(m->in.ring.end <= m->out.ring.end);
    assert_true(m->got == m->in.ring.begin && m->got <= m->made);
    assert_true(m->out.ring.begin <= m->got);
}

static void run_schedule(uint64_t seed)
{
    struct model m = {.random = seed * 0x9e3779b97f4a7c15U + 1};
    int rest = 0;

    m.wanted = 1 + below(&m, 4000);
    m.qemu = (struct carrier){.ops = &qemu_ops, .fd = -1};
    m.peer_out = (struct carrier){.ops = &out_ops, .fd = -1};
    m.peer_in = (struct carrier){.ops = &in_ops, .fd = -1};
    m.sink =
        (struct carrier){.ops = &sink_ops, .fd = -1}; /* the shutdown(2) of its end fails, which is as good */
    m.qemu.userdata = m.peer_out.userdata = m.peer_in.userdata = m.sink.userdata = &m;
    assert_int_equal(flow_init(&m.out, FLOW_OUT, &m.pool, WINDOW), 0);
    assert_int_equal(flow_init(&m.in, FLOW_IN, &m.pool, BUFFER), 0);
    m.out.from = &m.qemu;
    m.in.to = &m.sink;
    reconnect(&m);

    for (int i = 0; i < STEPS; i++)
        step(&m);
    /* Then the network stays, and all must come to its end. */
    m.made = m.wanted;
    m.eof = true;
    if (!m.connected)
        reconnect(&m);
    for (; rest < 100000 && !(flow_ended(&m.out) && flow_ended(&m.in)); rest++) {
        pump(&m.out);
        pump(&m.in);
        tell(&m);
        hear(&m, m.to_sink, &m.n_to_sink, &m.in);
        hear(&m, m.to_source, &m.n_to_source, &m.out);
    }
    if (m.wrong || m.got != m.wanted || !flow_ended(&m.out) || !flow_ended(&m.in))
        fail_msg("schedule %llu: %llu of %llu bytes, %s", (unsigned long long)seed, (unsigned long long)m.got,
                 (unsigned long long)m.wanted, m.wrong ? "a wrong one among them" : "none wrong");
    flow_clear(&m.out);
    flow_clear(&m.in);
    ring_pool_clear(&m.pool);
}

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 10) : otherwise;
}

TEST(test_schedules)
{
    uint64_t first = from_environment("VMFERRY_SEED", 1),
             n = from_environment("VMFERRY_SCHEDULES",
                                  test_in_valgrind() ? SCHEDULES_IN_VALGRIND : SCHEDULES);

    for (uint64_t seed = first; seed < first + n; seed++)
        run_schedule(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {CASE(test_schedules)};

    return cmocka_run_group_tests_name("resume", tests, NULL, NULL);
}
