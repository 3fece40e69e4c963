/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "helper/carrier/ring.h"

static size_t pieces_size(const struct iovec *iov, int n)
{
    size_t size = 0;

    for (int i = 0; i < n; i++)
        size += iov[i].iov_len;
    return size;
}

/* Reserves, fills with the pattern and commits up to max bytes; returns how many. */
static size_t put(struct ring *ring, size_t max)
{
    struct iovec iov[RING_IOV_MAX];
    int n = ring_reserve(ring, max, iov);
    uint64_t offset = ring->end;

    assert_between(n, 0, RING_IOV_MAX);
    for (int i = 0; i < n; i++) {
        test_fill(iov[i].iov_base, iov[i].iov_len, offset);
        offset += iov[i].iov_len;
    }
    ring_commit(ring, (size_t)(offset - ring->end));
    return pieces_size(iov, n);
}

/* Peeks up to max bytes, compares them and moves on; returns how many. */
static size_t get(struct ring *ring, size_t max)
{
    struct iovec iov[RING_IOV_MAX];
    int n = ring_peek(ring, max, iov);
    uint64_t offset = ring->cursor;

    assert_between(n, 0, RING_IOV_MAX);
    for (int i = 0; i < n; i++) {
        test_expect(iov[i].iov_base, iov[i].iov_len, offset);
        offset += iov[i].iov_len;
    }
    ring_advance(ring, pieces_size(iov, n));
    return pieces_size(iov, n);
}

static size_t blocks_of(const struct ring *ring)
{
    size_t n = 0;

    for (size_t i = 0; i < ring->n_slots; i++)
        n += ring->slots[i] != NULL;
    return n;
}

TEST(test_empty)
{
    struct ring_pool pool = {.max_free = 4};
    struct ring ring = {0};
    struct iovec iov[RING_IOV_MAX];
    uint8_t byte;

    ring_clear(&ring); /* safe on a zeroed one */
    assert_int_equal(ring_init(&ring, &pool, 1000), 0);
    assert_int_equal(ring_room(&ring), 1000);
    assert_int_equal(ring_unsent(&ring), 0);
    assert_int_equal(ring_peek(&ring, SIZE_MAX, iov), 0);
    assert_int_equal(ring_copy(&ring, &byte, 1), 0);
    assert_int_equal(ring_reserve(&ring, 0, iov), 0);
    assert_int_equal(ring_append(&ring, NULL, 0), 0);
    assert_int_equal(blocks_of(&ring), 0); /* no memory before it is needed */
    ring_release(&ring, 0);
    ring_clear(&ring);
    ring_pool_clear(&pool);
}

TEST(test_append_and_copy)
{
    struct ring_pool pool = {.max_free = 4};
    struct ring ring;
    uint8_t data[300], back[400];

    assert_int_equal(ring_init(&ring, &pool, 1000), 0);
    test_fill(data, sizeof(data), 0);
    assert_int_equal(ring_append(&ring, data, sizeof(data)), 0);
    assert_int_equal(ring_unsent(&ring), 300);
    assert_int_equal(ring_room(&ring), 700);
    assert_int_equal(ring_copy(&ring, back, sizeof(back)), 300);
    assert_memory_equal(back, data, 300);
    assert_int_equal(ring_copy(&ring, back, 10), 10);
    assert_int_equal(ring_unsent(&ring), 300); /* a copy moves nothing */

    ring_advance(&ring, 100);
    assert_int_equal(ring_copy(&ring, back, sizeof(back)), 200);
    assert_memory_equal(back, data + 100, 200);
    assert_int_equal(ring_room(&ring), 700); /* what went out still counts */
    ring_release(&ring, 100);
    assert_int_equal(ring_room(&ring), 800);
    ring_clear(&ring);
    ring_pool_clear(&pool);
}

TEST(test_append_is_all_or_nothing)
{
    struct ring_pool pool = {.max_free = 4};
    struct ring ring;
    uint8_t data[101] = {0};

    assert_int_equal(ring_init(&ring, &pool, 100), 0);
    assert_int_equal(ring_append(&ring, data, 101), -ENOBUFS);
    assert_int_equal(ring.end, 0);
    assert_int_equal(ring_append(&ring, data, 60), 0);
    assert_int_equal(ring_append(&ring, data, 41), -ENOBUFS);
    assert_int_equal(ring.end, 60);
    assert_int_equal(ring_append(&ring, data, 40), 0);
    assert_int_equal(ring_append(&ring, data, 1), -ENOBUFS);
    assert_int_equal(ring_room(&ring), 0);
    ring_clear(&ring);
    ring_pool_clear(&pool);
}

/* An append over a block's end lies in two pieces and comes back as one. */
TEST(test_append_over_blocks)
{
    struct ring_pool pool = {.max_free = 4};
    struct ring ring;
    size_t size = 2 * RING_BLOCK + 77;
    uint8_t *data = malloc(size), *back = malloc(size);
    struct iovec iov[RING_IOV_MAX];

    assert_int_equal(ring_init(&ring, &pool, 4 * RING_BLOCK), 0);
    assert_int_equal(put(&ring, RING_BLOCK - 10), RING_BLOCK - 10);
    get(&ring, SIZE_MAX);
    test_fill(data, size, ring.end);
    assert_int_equal(ring_append(&ring, data, size), 0);
    assert_int_equal(ring_peek(&ring, SIZE_MAX, iov), 4);
    assert_int_equal(iov[0].iov_len, 10);
    assert_int_equal(iov[1].iov_len, RING_BLOCK);
    assert_int_equal(iov[2].iov_len, RING_BLOCK);
    assert_int_equal(iov[3].iov_len, 67);
    assert_int_equal(ring_copy(&ring, back, size), size);
    assert_memory_equal(data, back, size);
    free(data);
    free(back);
    ring_clear(&ring);
    ring_pool_clear(&pool);
}

/* Odd capacities, far from the beginning, in steps of any size: every byte comes back, the bound holds. */
TEST(test_wraparound)
{
    static const size_t capacities[] = {1,
                                        2,
                                        7,
                                        4096,
                                        RING_BLOCK - 1,
                                        RING_BLOCK,
                                        RING_BLOCK + 1,
                                        3 * RING_BLOCK - 5,
                                        5 * RING_BLOCK,
                                        20 * RING_BLOCK};

    for (size_t c = 0; c < ELEMENTS(capacities); c++) {
        size_t capacity = capacities[c];
        uint64_t until = 12 * capacity < 2000000 ? 12 * capacity : 2000000 + capacity;
        struct ring_pool pool = {.max_free = 2};
        struct ring ring;

        assert_int_equal(ring_init(&ring, &pool, capacity), 0);
        while (ring.begin < until) {
            put(&ring, 1 + test_random() % (capacity + 1));
            assert_true(ring.end - ring.begin <= capacity);
            get(&ring, 1 + test_random() % (capacity + 1));
            ring_release(&ring, ring.begin + test_random() % (ring.cursor - ring.begin + 1));
            assert_true(ring.begin <= ring.cursor && ring.cursor <= ring.end);
            assert_true(blocks_of(&ring) <= ring.n_slots);
            if (capacity < 100 && ring.end - ring.begin == capacity && ring.cursor == ring.end)
                ring_release(&ring, ring.cursor);
        }
        ring_clear(&ring);
        ring_pool_clear(&pool);
    }
}

TEST(test_full)
{
    struct ring_pool pool = {.max_free = 8};
    struct ring ring;
    struct iovec iov[RING_IOV_MAX];
    size_t capacity = 3 * RING_BLOCK + 1;

    assert_int_equal(ring_init(&ring, &pool, capacity), 0);
    assert_int_equal(put(&ring, SIZE_MAX), capacity);
    assert_int_equal(ring_room(&ring), 0);
    assert_int_equal(ring_reserve(&ring, SIZE_MAX, iov), 0);
    assert_int_equal(get(&ring, SIZE_MAX), capacity);
    assert_int_equal(ring_reserve(&ring, SIZE_MAX, iov), 0); /* sent is not yet acknowledged */
    ring_release(&ring, 1);
    assert_int_equal(ring_room(&ring), 1);
    assert_int_equal(ring_reserve(&ring, SIZE_MAX, iov), 1);
    assert_int_equal(iov[0].iov_len, 1);
    ring_clear(&ring);
    ring_pool_clear(&pool);
}

/* More pieces than one system call takes: the rest is for the next. */
TEST(test_many_pieces)
{
    struct ring_pool pool = {.max_free = 8};
    struct ring ring;
    size_t capacity = 40 * RING_BLOCK;

    assert_int_equal(ring_init(&ring, &pool, capacity), 0);
    assert_int_equal(put(&ring, 5), 5);
    assert_int_equal(put(&ring, SIZE_MAX), RING_IOV_MAX * RING_BLOCK - 5);
    while (put(&ring, SIZE_MAX) > 0)
        ;
    assert_int_equal(ring_unsent(&ring), capacity);
    assert_int_equal(get(&ring, 5), 5);
    assert_int_equal(get(&ring, SIZE_MAX), RING_IOV_MAX * RING_BLOCK - 5);
    while (get(&ring, SIZE_MAX) > 0)
        ;
    assert_int_equal(ring_unsent(&ring), 0);
    ring_clear(&ring);
    ring_pool_clear(&pool);
}

/* What went out but is not released is there to be sent again. */
TEST(test_sent_is_kept)
{
    struct ring_pool pool = {.max_free = 8};
    struct ring ring;

    assert_int_equal(ring_init(&ring, &pool, 4 * RING_BLOCK), 0);
    put(&ring, 3 * RING_BLOCK);
    assert_int_equal(get(&ring, SIZE_MAX), 3 * RING_BLOCK);
    ring_release(&ring, RING_BLOCK + 9);
    ring.cursor = ring.begin;
    assert_int_equal(get(&ring, SIZE_MAX), 2 * RING_BLOCK - 9);
    ring_clear(&ring);
    ring_pool_clear(&pool);
}

/* Blocks go back when all of them is released, are taken again last in first out, and are shared. */
TEST(test_blocks_are_reused)
{
    struct ring_pool pool = {.max_free = 8};
    struct ring one, two;
    struct iovec iov[RING_IOV_MAX];
    const void *last;

    assert_int_equal(ring_init(&one, &pool, 8 * RING_BLOCK), 0);
    assert_int_equal(ring_init(&two, &pool, 8 * RING_BLOCK), 0);
    put(&one, 2 * RING_BLOCK);
    assert_int_equal(blocks_of(&one), 2);
    last = one.slots[1];
    get(&one, SIZE_MAX);
    ring_release(&one, RING_BLOCK - 1);
    assert_int_equal(pool.n_free, 0);
    ring_release(&one, RING_BLOCK);
    assert_int_equal(pool.n_free, 1);
    ring_release(&one, 2 * RING_BLOCK);
    assert_int_equal(pool.n_free, 2);
    assert_int_equal(blocks_of(&one), 0);

    assert_int_equal(ring_reserve(&two, 1, iov), 1);
    assert_ptr_equal(iov[0].iov_base, last);
    assert_int_equal(pool.n_free, 1);
    /* What is reserved and not filled is not taken twice. */
    assert_int_equal(ring_reserve(&two, 1, iov), 1);
    assert_ptr_equal(iov[0].iov_base, last);
    assert_int_equal(pool.n_free, 1);

    ring_clear(&two);
    assert_int_equal(pool.n_free, 2);
    ring_clear(&one);
    ring_pool_clear(&pool);
    assert_int_equal(pool.n_free, 0);
    assert_null(pool.free);
}

/* Far more than its capacity goes through, and only what is held at once takes memory; all stays what it was.
 */
TEST(test_empty_begins_anew)
{
    struct ring_pool pool = {.max_free = 4};
    struct ring ring;
    struct iovec iov[RING_IOV_MAX];
    const void *first;

    assert_int_equal(ring_init(&ring, &pool, 4 * RING_BLOCK), 0);
    assert_int_equal(put(&ring, 4104), 4104);
    first = ring.slots[0];
    for (int i = 0; i < 300; i++) {
        assert_int_equal(get(&ring, SIZE_MAX), 4104);
        ring_release(&ring, ring.cursor);
        assert_int_equal(ring_reserve(&ring, 4104, iov), 1);
        assert_ptr_equal(iov[0].iov_base, first);
        assert_int_equal(put(&ring, 4104), 4104);
    }
    assert_int_equal(blocks_of(&ring), 1);

    /* While something is held nothing moves. */
    assert_int_equal(get(&ring, 4104), 4104);
    ring_release(&ring, ring.cursor - 1);
    assert_int_equal(put(&ring, 3 * RING_BLOCK), 3 * RING_BLOCK);
    ring_rewind(&ring, ring.begin);
    assert_int_equal(get(&ring, SIZE_MAX), 3 * RING_BLOCK + 1);
    assert_int_equal(blocks_of(&ring), 4);
    ring_release(&ring, ring.cursor);
    assert_int_equal(put(&ring, SIZE_MAX), 4 * RING_BLOCK);
    assert_int_equal(get(&ring, SIZE_MAX), 4 * RING_BLOCK);
    ring_clear(&ring);
    ring_pool_clear(&pool);
}

TEST(test_pool_is_bounded)
{
    struct ring_pool pool = {.max_free = 3};
    struct ring ring;

    assert_int_equal(ring_init(&ring, &pool, 10 * RING_BLOCK), 0);
    put(&ring, SIZE_MAX);
    get(&ring, SIZE_MAX);
    ring_release(&ring, ring.cursor);
    assert_int_equal(pool.n_free, 3);
    ring_clear(&ring);
    ring_pool_clear(&pool);
}

/* In a pipe only the offsets are here; the place changes where the ring is empty, and so does its capacity.
 */
TEST(test_pipe)
{
    struct ring_pool pool = {.max_free = 4};
    struct ring ring;
    int pipe;

    assert_int_equal(ring_init(&ring, &pool, 3 * RING_BLOCK), 0);
    assert_int_equal(put(&ring, 5000), 5000);
    assert_int_equal(get(&ring, 5000), 5000);
    assert_false(ring_is_empty(&ring)); /* it is kept */
    ring_release(&ring, ring.cursor);
    assert_true(ring_is_empty(&ring));

    ring_use_pipe(&ring, open("/dev/null", O_RDWR | O_CLOEXEC), 65536);
    assert_int_equal(blocks_of(&ring), 0);
    assert_int_equal(ring_room(&ring), 65536);
    ring_commit(&ring, 60000);
    ring.pipe_full = true;
    assert_int_equal(ring_room(&ring), 0);
    ring_advance(&ring, 59999);
    ring_release(&ring, ring.cursor);
    assert_int_equal(ring_room(&ring), 65535);
    ring_advance(&ring, 1);
    ring_release(&ring, ring.cursor);

    pipe = ring_leave_pipe(&ring);
    assert_true(pipe >= 0);
    close(pipe);
    assert_int_equal(ring.end, 65000);
    assert_int_equal(put(&ring, SIZE_MAX), 3 * RING_BLOCK);
    assert_int_equal(get(&ring, SIZE_MAX), 3 * RING_BLOCK);
    ring_clear(&ring);
    ring_pool_clear(&pool);
}

/* A stream longer than 4 GiB: offsets do not wrap where a size_t or an int might. */
TEST(test_far_offsets)
{
    struct ring_pool pool = {.max_free = 3};
    struct ring ring;

    assert_int_equal(ring_init(&ring, &pool, 2 * RING_BLOCK + 100), 0);
    ring.begin = ring.cursor = ring.end = ((uint64_t)1 << 40) - 1000;
    for (int i = 0; i < 20; i++) {
        assert_true(put(&ring, 50000) > 0);
        assert_true(get(&ring, 50000) > 0);
        ring_release(&ring, ring.cursor);
    }
    assert_true(ring.end > (uint64_t)1 << 40);
    ring_clear(&ring);
    ring_pool_clear(&pool);
}

/* Wherever its content begins, and with blocks that wait beyond its end. */
TEST(test_grows_with_its_content)
{
    for (uint64_t begin = 0; begin < 12 * RING_BLOCK; begin += RING_BLOCK / 2 + 100) {
        struct ring_pool pool = {.max_free = 4};
        struct ring ring;
        struct iovec iov[RING_IOV_MAX];

        assert_int_equal(ring_init(&ring, &pool, 4 * RING_BLOCK), 0);
        while (ring.begin < begin) {
            const uint64_t left = begin - ring.begin;

            put(&ring, left < 1000 ? (size_t)left : 1000);
            put(&ring, 1); /* so that it is never empty, and its blocks go round */
            get(&ring, SIZE_MAX);
            ring_release(&ring, ring.end - 1 < begin ? ring.end - 1 : begin);
        }
        assert_true(ring_reserve(&ring, SIZE_MAX, iov) > 0);
        while (ring_room(&ring) > RING_BLOCK)
            assert_true(put(&ring, 3 * RING_BLOCK / 2) > 0);
        get(&ring, RING_BLOCK / 3);
        assert_int_equal(ring_grow(&ring, 5 * RING_BLOCK + 100), 0);
        while (put(&ring, SIZE_MAX) > 0)
            ;
        assert_int_equal(ring.end - ring.begin, 9 * RING_BLOCK + 100);
        ring_rewind(&ring, ring.begin);
        while (get(&ring, SIZE_MAX) > 0)
            ;
        ring_release(&ring, ring.end);
        ring_clear(&ring);
        ring_pool_clear(&pool);
    }
}

TEST(test_growth_is_bounded)
{
    struct ring_pool pool = {.growth = 1000};

    assert_int_equal(ring_pool_grant(&pool, 600), 600);
    assert_int_equal(ring_pool_grant(&pool, 600), 400);
    assert_int_equal(ring_pool_grant(&pool, 600), 0);
    ring_pool_allow(&pool, 400);
    assert_int_equal(ring_pool_grant(&pool, 300), 300);
    assert_int_equal(pool.growth, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_empty),
        CASE(test_append_and_copy),
        CASE(test_append_is_all_or_nothing),
        CASE(test_append_over_blocks),
        CASE(test_wraparound),
        CASE(test_full),
        CASE(test_many_pieces),
        CASE(test_sent_is_kept),
        CASE(test_blocks_are_reused),
        CASE(test_empty_begins_anew),
        CASE(test_pool_is_bounded),
        CASE(test_far_offsets),
        CASE(test_pipe),
        CASE(test_grows_with_its_content),
        CASE(test_growth_is_bounded),
    };

    return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
