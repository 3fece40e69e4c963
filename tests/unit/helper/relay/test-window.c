/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "helper/relay/window.h"

enum { MIB = 1024 * 1024, STEP = 256 * 1024 /* that is sent, and acknowledged, at once */ };

/*
 * A channel whose source always has more: each byte arrives trip µs after it was sent, and then waits for the
 * peer's QEMU, which takes rate bytes/µs. Its acknowledgement is here at once. Doubles the window when that
 * is said to be too small, up to most.
 */
struct link {
    struct window window;
    uint64_t trip, rate;
    size_t size, most;
    uint64_t now, sent, acked;
    uint64_t free_at;   /* when QEMU will have taken all that was sent */
    uint64_t due[4096]; /* when each step is acknowledged, modulo */
    unsigned n_grown;
};

static void send_all(struct link *link)
{
    while (link->sent + STEP - link->acked <= link->size) {
        uint64_t arrives = link->now + link->trip;

        link->free_at = (link->free_at > arrives ? link->free_at : arrives) + STEP / link->rate;
        link->due[link->sent / STEP % ELEMENTS(link->due)] = link->free_at;
        link->sent += STEP;
        window_on_sent(&link->window, link->sent, link->sent + STEP - link->acked > link->size, link->now);
    }
}

static void run(struct link *link, uint64_t usec)
{
    const uint64_t end = link->now + usec;

    send_all(link);
    while (link->due[link->acked / STEP % ELEMENTS(link->due)] < end) {
        link->now = link->due[link->acked / STEP % ELEMENTS(link->due)];
        link->acked += STEP;
        if (window_on_ack(&link->window, link->acked, link->size, link->now) && link->size < link->most) {
            link->size = 2 * link->size < link->most ? 2 * link->size : link->most;
            link->n_grown++;
        }
        send_all(link);
    }
    link->now = end;
}

#define LINK(...)                                                       \
    {                                                                   \
        .size = 4 * MIB, .most = 256 * MIB, .now = 1000000, __VA_ARGS__ \
    }

TEST(beside_each_other_it_stays)
{
    struct link link = LINK(.trip = 100, .rate = 2000);

    run(&link, 5000000);
    assert_int_equal(link.n_grown, 0);
}

TEST(far_away_it_grows_to_what_fills_the_link)
{
    static const uint64_t trips[] = {2000, 10000, 50000};

    for (size_t i = 0; i < ELEMENTS(trips); i++) {
        struct link link = LINK(.trip = trips[i], .rate = 1250);
        const uint64_t product = trips[i] * link.rate; /* 10 Gb/s × the round trip */

        run(&link, 5000000);
        assert_true(link.size >= product);
        assert_true(link.size <= 4 * product || link.size == 4 * MIB);
    }
}

TEST(it_grows_soon)
{
    struct link link = LINK(.trip = 50000, .rate = 1250);

    run(&link, 1000000); /* twenty round trips */
    assert_true(link.size >= 50000 * 1250);
}

/* The queue is at the destination: a larger window would be a longer queue. */
TEST(a_qemu_that_is_slow_gets_no_longer_queue)
{
    static const uint64_t trips[] = {100, 2000, 10000};

    for (size_t i = 0; i < ELEMENTS(trips); i++) {
        struct link link = LINK(.trip = trips[i], .rate = 50);

        run(&link, 5000000);
        assert_int_equal(link.n_grown, 0);
    }
}

TEST(what_is_sent_now_and_then_needs_none)
{
    struct window window = {0};
    uint64_t now = 1000000, offset = 0;

    for (int i = 0; i < 1000; i++) {
        window_on_sent(&window, offset += 4096, false, now);
        assert_false(window_on_ack(&window, offset, 4 * MIB, now += 50000));
    }
}

TEST(the_first_times_do_not_count)
{
    struct window window = {0};

    for (unsigned i = 0; i < WINDOW_LOOKS; i++) {
        window_on_sent(&window, (i + 1) * 4 * MIB, true, 100000 * i);
        assert_int_equal(window_on_ack(&window, (i + 1) * 4 * MIB, 4 * MIB, 100000 * i + 50000),
                         i == WINDOW_LOOKS - 1);
    }
}

TEST(only_the_mark_counts)
{
    struct window window = {.looks = WINDOW_LOOKS, .shortest = 50000};

    window_on_sent(&window, 1000, true, 0);
    window_on_sent(&window, 2000, true, 90000);
    assert_false(window_on_ack(&window, 999, 4 * MIB, 50000));
    assert_true(window_on_ack(&window, 1500, 4 * MIB, 100000));
    assert_false(window_on_ack(&window, 2000, 4 * MIB, 100001)); /* it was not waited for */
}

TEST(after_a_loss_it_is_measured_anew)
{
    struct window window = {.looks = WINDOW_LOOKS, .shortest = 50000};

    window_on_sent(&window, 1000, true, 0);
    window_forget(&window);
    assert_false(window_on_ack(&window, 1000, 4 * MIB, 60000));
    window_on_sent(&window, 1000, true, 70000);
    assert_true(window_on_ack(&window, 1000, 4 * MIB, 120000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(beside_each_other_it_stays),
        CASE(far_away_it_grows_to_what_fills_the_link),
        CASE(it_grows_soon),
        CASE(a_qemu_that_is_slow_gets_no_longer_queue),
        CASE(what_is_sent_now_and_then_needs_none),
        CASE(the_first_times_do_not_count),
        CASE(only_the_mark_counts),
        CASE(after_a_loss_it_is_measured_anew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
