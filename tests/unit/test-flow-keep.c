/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "flow-rig.h"

/* Out of QEMU through pipes, and what is kept there for a peer that is lost. */

enum { PIPE_SMALL = 65536 }; /* 16 slots */

/* A source that keeps in pipes, and how far its peer is. */
struct source {
    struct rig rig;
    uint64_t put, got, random;
};

static void source_init(struct source *source, int pipe_size, int keep_size, unsigned n_keep)
{
    struct keep keep = {0};

    *source = (struct source){.random = 88172645463325252U};
    rig_init(&source->rig);
    source->rig.pool.null = open("/dev/null", O_WRONLY | O_CLOEXEC);
    assert_true(source->rig.pool.null >= 0);
    for (unsigned i = 0; i < n_keep; i++)
        assert_int_equal(keep_add(&keep, rig_pipe(keep_size)), 0);
    flow_use_pipe(&source->rig.out, rig_pipe(pipe_size), (size_t)pipe_size, &keep);
}

static void source_clear(struct source *source)
{
    rig_clear(&source->rig);
    close(source->rig.pool.null);
}

static size_t below(struct source *source, size_t n)
{
    source->random ^= source->random << 13;
    source->random ^= source->random >> 7;
    source->random ^= source->random << 17;
    return (size_t)(source->random % n);
}

static void source_pump(struct source *source)
{
    const struct flow *out = &source->rig.out;

    assert_int_equal(pump(&source->rig.out, 0), FLOW_OK);
    assert_true(out->ring.end - out->ring.begin <= WINDOW);
    assert_true(out->ring.begin == out->acked);
}

static void source_get(struct source *source, size_t max)
{
    source->got += (uint64_t)get(source->rig.peer, source->got, max);
}

/* QEMU writes so much, and what comes of it reaches the peer. */
static void source_step(struct source *source, size_t size)
{
    source->put += put(source->rig.qemu, source->put, size);
    source_pump(source);
    source_get(source, SIZE_MAX);
}

/* What is on its way is lost; the peer says what it has. */
static void source_cut(struct source *source)
{
    struct rig *rig = &source->rig;
    int peer[2];

    rig->out.to = rig->in.from = NULL;
    carrier_free(rig->to_peer);
    close_end(&rig->peer);
    assert_int_equal(pump(&rig->out, 0), FLOW_OK); /* and QEMU goes on */
    test_pair(SOCK_STREAM, 0, peer);
    rig->peer = peer[0];
    assert_int_equal(carrier_plain_new(peer[1], false, NULL, NULL, &rig->to_peer), 0);
    assert_null(flow_resume(&rig->out, source->got));
    rig->out.to = rig->in.from = rig->to_peer;
}

TEST(test_kept)
{
    struct source source;

    source_init(&source, PIPE_SMALL, PIPE_SMALL, 2);
    for (int i = 0; i < 200; i++) {
        source_step(&source, 20000);
        assert_true(source.rig.out.ring.pipe >= 0);
        assert_null(flow_on_ack(&source.rig.out, source.got));
    }
    assert_true(source.got > 1000000);
    shutdown(source.rig.qemu, SHUT_WR);
    for (int i = 0; i < 100 && !source.rig.out.ending; i++) {
        assert_null(flow_on_ack(&source.rig.out, source.got));
        source_pump(&source);
        source_get(&source, SIZE_MAX);
    }
    assert_int_equal(source.got, source.put);
    assert_true(source.rig.out.ending);
    assert_int_equal(source.rig.out.total, source.put);
    assert_int_equal(flow_ended(&source.rig.out), source.rig.out.acked == source.put);
    assert_null(flow_on_ack(&source.rig.out, source.got));
    assert_true(flow_ended(&source.rig.out));
    source_clear(&source);
}

/* Many small pieces use up the slots long before the window is full: then all is in memory, and goes on. */
TEST(test_kept_small_pieces)
{
    struct source source;

    source_init(&source, PIPE_SMALL, PIPE_SMALL, 2);
    for (int i = 0; i < 20; i++) {
        source_step(&source, 3);
    }
    assert_true(source.rig.out.ring.keeps);
    assert_int_equal(source.got, source.put);
    for (int i = 0; i < 500; i++) {
        source.put += put(source.rig.qemu, source.put, 3);
        source_pump(&source);
        source_pump(&source);
        source_get(&source, SIZE_MAX);
        assert_int_equal(source.got, source.put);
    }
    assert_true(source.rig.out.ring.pipe < 0 && !source.rig.out.ring.keeps);
    source.got = 5;
    source_cut(&source);
    source_pump(&source);
    source_get(&source, SIZE_MAX);
    assert_int_equal(source.got, source.put);
    source_clear(&source);
}

/* The window holds with pipes that could take more. */
TEST(test_kept_window)
{
    struct source source;

    source_init(&source, 1024 * 1024, 1024 * 1024, KEEP_PIPES);
    source_pump(&source);
    for (int i = 0; i < 2000 && flow_wants_input(&source.rig.out); i++) {
        source_step(&source, 100000);
    }
    assert_between(source.rig.out.ring.end, 1024 * 1024, WINDOW);
    source_cut(&source);
    source_get(&source, SIZE_MAX);
    source_clear(&source);
}

/* What is received but not delivered is no reason to forget it, nor to send it twice. */
TEST(test_kept_lies)
{
    struct source source;

    source_init(&source, PIPE_SMALL, PIPE_SMALL, 2);
    source.put = put(source.rig.qemu, 0, 30000);
    source_pump(&source);
    source_get(&source, SIZE_MAX);
    assert_int_equal(source.got, 30000);
    assert_null(flow_on_ack(&source.rig.out, 10000));
    assert_non_null(flow_on_ack(&source.rig.out, 9999));
    assert_non_null(flow_on_ack(&source.rig.out, 30001));
    assert_non_null(flow_resume(&source.rig.out, 9999));
    assert_non_null(flow_resume(&source.rig.out, 30001));
    assert_true(source.rig.out.ring.pipe >= 0); /* a lie has changed nothing */
    source.got = 20000;
    source_cut(&source);
    assert_true(source.rig.out.ring.pipe < 0);
    source_pump(&source);
    source_get(&source, SIZE_MAX);
    assert_int_equal(source.got, 30000);
    /* In memory until all is acknowledged, then in pipes again. */
    source_step(&source, 1000);
    assert_int_equal(source.got, 30000);
    assert_null(flow_on_ack(&source.rig.out, 30000));
    source_pump(&source);
    source_get(&source, SIZE_MAX);
    assert_int_equal(source.got, 31000);
    assert_true(source.rig.out.ring.pipe >= 0);
    source_clear(&source);
}

/* Random schedules of pieces, acknowledgements and losses. */
static void play(uint64_t seed)
{
    struct source source;
    uint64_t wanted;

    source_init(&source, PIPE_SMALL, seed % 4 < 3 ? 1024 * 1024 : PIPE_SMALL,
                1 + (unsigned)(seed % KEEP_PIPES));
    source.random ^= seed * 0x9E3779B97F4A7C15U;
    wanted = 1 + below(&source, 3000000);
    for (int step = 0; source.got < wanted || source.rig.out.acked < wanted; step++) {
        uint64_t left = wanted - source.put;
        size_t piece = below(&source, 4) ? 30000 : 20;

        assert_true(step < 200000);
        piece = 1 + below(&source, piece);
        switch (below(&source, 6)) {
        case 0:
        case 1:
            source.put += put(source.rig.qemu, source.put, left < piece ? (size_t)left : piece);
            break;
        case 2:
            source_get(&source, 1 + below(&source, 60000));
            break;
        case 3:
            if (below(&source, 20) == 0)
                source_cut(&source);
            break;
        case 4:
            assert_null(flow_on_ack(&source.rig.out,
                                    source.rig.out.acked +
                                        below(&source, (size_t)(source.got - source.rig.out.acked + 1))));
            break;
        default:
            source_pump(&source);
        }
    }
    source_clear(&source);
}

TEST(test_kept_at_random)
{
    for (uint64_t seed = 1; seed <= 150; seed++)
        play(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_kept),      CASE(test_kept_small_pieces), CASE(test_kept_window),
        CASE(test_kept_lies), CASE(test_kept_at_random),
    };

    return cmocka_run_group_tests_name("flow-keep", tests, NULL, NULL);
}
