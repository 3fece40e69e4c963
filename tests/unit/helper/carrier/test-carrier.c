/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "carrier-rig.h"

#include <sys/epoll.h>

/* One direction of a transfer. */
struct way {
    struct carrier *from, *to;
    struct ring out, in;
    uint64_t put, got, size;
};

static void way_init(struct way *way, struct carrier *from, struct carrier *to, struct ring_pool *pool,
                     uint64_t size, size_t capacity)
{
    *way = (struct way){.from = from, .to = to, .size = size};
    assert_int_equal(ring_init(&way->out, pool, capacity), 0);
    assert_int_equal(ring_init(&way->in, pool, capacity), 0);
}

static void way_clear(struct way *way)
{
    ring_clear(&way->out);
    ring_clear(&way->in);
}

/* Moves what goes, in pieces of any size. */
static void way_move(struct way *way, uint32_t step)
{
    size_t n = 1 + test_random() % step;
    ssize_t r;

    if (n > ring_room(&way->out))
        n = ring_room(&way->out);
    if (n > way->size - way->put)
        n = (size_t)(way->size - way->put);
    if (n > 0)
        ring_put(&way->out, way->put, n);
    way->put += n;
    r = ring_unsent(&way->out) > 0 ? carrier_send(way->from, &way->out) : way->from->ops->flush(way->from);
    assert_true(r >= 0 || r == -EAGAIN);
    ring_release(&way->out, way->out.cursor);

    r = carrier_recv(way->to, &way->in, 1 + test_random() % step);
    assert_true(r > 0 || r == -EAGAIN);
    while (ring_unsent(&way->in) > 0) {
        struct iovec iov[RING_IOV_MAX];

        assert_true(ring_peek(&way->in, 1 + test_random() % step, iov) >= 1);
        test_expect(iov[0].iov_base, iov[0].iov_len, way->got);
        way->got += iov[0].iov_len;
        ring_advance(&way->in, iov[0].iov_len);
    }
    ring_release(&way->in, way->in.cursor);
}

/* Both directions at once, through socket buffers of that size. */
static void transfer(enum kind kind, int buffer, uint32_t step, uint64_t size)
{
    struct ring_pool pool = {.max_free = 8};
    struct carrier *a, *b;
    struct way there, back;

    make_pair(kind, buffer, &a, &b);
    way_init(&there, a, b, &pool, size, 300000);
    way_init(&back, b, a, &pool, size / 2 + 7, 70001);
    while (there.got < there.size || back.got < back.size) {
        way_move(&there, step);
        way_move(&back, step);
    }
    assert_false(a->ops->holds_output(a));
    assert_false(b->ops->holds_output(b));
    assert_false(a->ops->holds_input(a));
    assert_false(b->ops->holds_input(b));
    way_clear(&there);
    way_clear(&back);
    carrier_free(a);
    carrier_free(b);
    ring_pool_clear(&pool);
}

static uint64_t large(void)
{
    return test_in_valgrind() ? 2000000 : 20000000;
}

TEST(test_transfer_plain)
{
    transfer(PLAIN, 0, 200000, large());
    transfer(PLAIN, 4096, 9999, large() / 20);
    transfer(PLAIN, 4096, 3, 5000);
}

TEST(test_transfer_tls)
{
    transfer(TLS, 0, 200000, large());
    transfer(TLS, 4096, 9999, large() / 20);
    transfer(TLS, 4096, 3, 5000);
}

TEST(test_free_of_nothing)
{
    int pair[2];

    assert_null(carrier_free(NULL));
    for (int kind = PLAIN; kind <= TLS; kind++) {
        test_pair(SOCK_STREAM, 0, pair);
        assert_null(carrier_free(make((enum kind)kind, pair[0], true, &preamble, key)));
        carrier_free(make((enum kind)kind, pair[1], false, &preamble, key));
    }
}

TEST(test_export_key)
{
    for (int kind = PLAIN; kind <= TLS; kind++) {
        uint8_t keys[3][KEY_SIZE];

        for (int i = 0; i < 3; i++) {
            struct carrier *a, *b;
            uint8_t same[KEY_SIZE];

            make_pair((enum kind)kind, 0, &a, &b);
            assert_int_equal(a->ops->export_key(a, keys[i]), 0);
            assert_int_equal(b->ops->export_key(b, same), 0);
            assert_memory_equal(keys[i], same, KEY_SIZE);
            assert_memory_not_equal(keys[i], key, KEY_SIZE);
            for (int j = 0; j < i; j++)
                assert_memory_not_equal(keys[i], keys[j], KEY_SIZE);
            carrier_free(a);
            carrier_free(b);
        }
    }
}

TEST(test_eof_and_broken)
{
    for (int kind = PLAIN; kind <= TLS; kind++) {
        struct ring_pool pool = {0};
        struct ring ring;
        struct carrier *a, *b;
        ssize_t r = 1;

        make_pair((enum kind)kind, 0, &a, &b);
        assert_int_equal(ring_init(&ring, &pool, 100000), 0);
        carrier_free(b);
        assert_int_equal(carrier_recv(a, &ring, 1000), 0);
        ring_put(&ring, 0, 50000);
        for (int i = 0; i < 5 && r > 0; i++)
            r = carrier_send(a, &ring);
        assert_int_equal(r, -EPIPE); /* and no SIGPIPE */
        ring_clear(&ring);
        carrier_free(a);
    }
}

/* ---- In a loop of events ---- */

struct seen {
    sd_event *event;
    struct carrier *carrier;
    uint32_t revents;
    int n;
    bool free_it;
};

static void on_ready(struct carrier *carrier, uint32_t revents, void *userdata)
{
    struct seen *seen = userdata;

    assert_ptr_equal(carrier, seen->carrier);
    seen->revents = revents;
    seen->n++;
    if (seen->free_it)
        seen->carrier = carrier_free(carrier);
}

TEST(test_events)
{
    struct seen seen = {0};
    int pair[2];

    test_pair(SOCK_STREAM, 0, pair);
    assert_int_equal(carrier_raw_new(pair[0], &seen.carrier), 0);
    assert_true(sd_event_new(&seen.event) >= 0);
    assert_int_equal(carrier_attach(seen.carrier, seen.event, on_ready, &seen), 0);
    assert_int_equal(send(pair[1], "x", 1, 0), 1);
    assert_int_equal(sd_event_run(seen.event, 0), 0); /* nothing is waited for yet */
    carrier_watch(seen.carrier, EPOLLIN);
    assert_true(sd_event_run(seen.event, 1000000) > 0);
    assert_int_equal(seen.n, 1);
    assert_int_equal(seen.revents, EPOLLIN);
    carrier_watch(seen.carrier, EPOLLOUT);
    assert_true(sd_event_run(seen.event, 1000000) > 0);
    assert_int_equal(seen.revents, EPOLLOUT);

    /* The other end is gone, and nothing is waited for: a hang-up must not spin the loop. */
    carrier_watch(seen.carrier, 0);
    close(pair[1]);
    for (int i = 0; i < 3; i++)
        assert_int_equal(sd_event_run(seen.event, 0), 0);
    assert_int_equal(seen.n, 2);

    /* It may be freed where it says that it is ready. */
    seen.free_it = true;
    assert_int_equal(carrier_attach(seen.carrier, seen.event, on_ready, &seen), 0);
    carrier_watch(seen.carrier, EPOLLIN);
    assert_true(sd_event_run(seen.event, 1000000) > 0);
    assert_null(seen.carrier);
    assert_int_equal(sd_event_run(seen.event, 0), 0);
    assert_int_equal(seen.n, 3);
    sd_event_unref(seen.event);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_transfer_plain), CASE(test_transfer_tls),   CASE(test_free_of_nothing),
        CASE(test_export_key),     CASE(test_eof_and_broken), CASE(test_events),
    };

    return cmocka_run_group_tests_name("carrier", tests, NULL, NULL);
}
