/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "helper/relay/pacer.h"

enum { SECOND = 1000000 };

/* Before the first round a flow's share is all that there is: the bucket alone decides. */

static size_t allows(struct pacer *pacer, uint64_t now)
{
    return pacer_allows(pacer, &(struct pacer_share){0}, now);
}

static void take(struct pacer *pacer, size_t n)
{
    pacer_take(pacer, &(struct pacer_share){0}, n);
}

static bool is_open(struct pacer *pacer)
{
    return !pacer_holds_back(pacer, &(struct pacer_share){0});
}

static const uint64_t rates[] = {1,       2,        3,         7,          10,         33,
                                 100,     300,      999,       1000,       1500,       4096,
                                 10000,   123457,   1000000,   1900000,    9999999,    8388608,
                                 1 << 30, 12500000, 125000000, 1250000000, 10000000000};

/*
 * Takes all that it may for so many simulated seconds, waking when it is told to and up to late µs after,
 * besides every poll µs (0: never). Returns the bytes.
 */
static double take_all(uint64_t rate, uint64_t seconds, uint64_t late, uint64_t poll)
{
    uint64_t start = (uint64_t)3600 * SECOND, now = start, next_poll = start + poll, wake = now;
    struct pacer pacer = PACER_INIT;
    double taken = 0;

    pacer_set(&pacer, rate, now);
    while (now < start + seconds * SECOND) {
        size_t n = allows(&pacer, now);

        assert_true(is_open(&pacer) == (n > 0));
        take(&pacer, n);
        taken += (double)n;
        assert_false(is_open(&pacer));
        assert_true(pacer_wait_usec(&pacer) > 0);
        if (n > 0 || now >= wake)
            wake = pacer.at + pacer_wait_usec(&pacer) + (late > 0 ? test_random() % (late + 1) : 0);
        if (wake <= now)
            wake = now + 1;
        now = wake;
        if (poll > 0 && next_poll < wake) {
            now = next_poll;
            next_poll += poll;
        }
    }
    return taken;
}

static bool rate_is_kept(uint64_t late, uint64_t poll)
{
    bool ok = true;

    for (size_t i = 0; i < ELEMENTS(rates); i++) {
        uint64_t seconds = (rates[i] < 100 ? 10U : 1U) * (poll > 0 && poll < 100 ? 2U : 10U);
        double want = (double)rates[i] * (double)seconds;
        double got = take_all(rates[i], seconds, late, poll);

        /* A byte is the least that there is, so the slowest may be one off. */
        if (got > want * 1.05 + 1 || got < want * 0.95 - 1) {
            print_error("%llu bytes/s: %.0f in %llu s (%.1f %%)\n", (unsigned long long)rates[i], got,
                        (unsigned long long)seconds, 100 * got / want);
            ok = false;
        }
    }
    return ok;
}

TEST(test_rate)
{
    assert_true(rate_is_kept(0, 0));
}

/* Timers come late, as they do on a busy host; the bucket's 50 ms are there for it. */
TEST(test_rate_with_late_timers)
{
    assert_true(rate_is_kept(3000, 0));
}

/* Other events pump in between; that must not cost what rounding leaves over. */
TEST(test_rate_with_other_events)
{
    bool seldom = rate_is_kept(0, 777), often = test_in_valgrind() || rate_is_kept(0, 13);

    assert_true(seldom && often);
}

/* In no single second is it more than 5 % above, whatever came before it. */
TEST(test_burst)
{
    for (size_t i = 0; i < ELEMENTS(rates); i++) {
        uint64_t now = 5;
        struct pacer pacer = PACER_INIT;
        double taken = 0;

        pacer_set(&pacer, rates[i], now);
        now += (uint64_t)1000 * SECOND; /* idle for long */
        for (uint64_t end = now + SECOND; now <= end; now += 1000) {
            size_t n = allows(&pacer, now);

            take(&pacer, n);
            taken += (double)n;
        }
        assert_true(taken <= (double)rates[i] * 1.0501 + 1);
    }
}

/* To the byte, at rates whose product with the time is more than 64 bits hold; and on hosts where a size_t
 * has 32. */
TEST(test_large_rates_are_exact)
{
    static const uint64_t large[] = {UINT32_MAX, 40000000001, 49999999999, 9999999999999, 25000000000007};

    for (size_t i = 0; i < ELEMENTS(large); i++) {
        uint64_t now = 77, past = 0, taken = 0;
        struct pacer pacer = PACER_INIT;

        if (large[i] / 1000 * 40 > SIZE_MAX / 2)
            continue; /* no single grant could hold what a step is worth there */
        pacer_set(&pacer, large[i], now);
        for (int step = 0; step < (test_in_valgrind() ? 5000 : 50000); step++) {
            uint64_t usec = 1 + test_random() % 40000;
            size_t n = allows(&pacer, now += usec);

            past += usec;
            taken += n;
            take(&pacer, n);
            assert_int_equal(taken, large[i] / SECOND * past + large[i] % SECOND * past / SECOND);
        }
    }
}

TEST(test_no_limit)
{
    struct pacer pacer = PACER_INIT;

    pacer_set(&pacer, 0, 100);
    assert_true(is_open(&pacer));
    assert_int_equal(allows(&pacer, 100), SIZE_MAX);
    take(&pacer, SIZE_MAX);
    take(&pacer, 1 << 30);
    assert_true(is_open(&pacer));
    assert_int_equal(allows(&pacer, 0), SIZE_MAX);
    assert_int_equal(pacer_wait_usec(&pacer), 0);
}

/* Nothing overflows (UBSan looks on), and nothing opens by it. */
TEST(test_extremes)
{
    static const uint64_t extreme[] = {1,          2,         999999,         1000000,
                                       UINT32_MAX, INT64_MAX, UINT64_MAX - 1, UINT64_MAX};

    for (size_t i = 0; i < ELEMENTS(extreme); i++) {
        static const uint64_t steps[] = {
            0, 1, 999, 49999, 50000, 999999, 1000000, UINT32_MAX, (uint64_t)1 << 62};
        struct pacer pacer = PACER_INIT;
        uint64_t now = 1;

        pacer_set(&pacer, extreme[i], now);
        assert_false(is_open(&pacer)); /* nothing for nothing */
        for (size_t j = 0; j < ELEMENTS(steps); j++) {
            size_t n;

            now += steps[j];
            n = allows(&pacer, now);
            assert_between(n, 0, (uint64_t)1 << 41);
            take(&pacer, n);
            assert_false(is_open(&pacer));
            assert_true(pacer_wait_usec(&pacer) >= 1);
        }
    }
}

/* A clock that seems to go back (two sources of "now") gives nothing and takes nothing. */
TEST(test_time_goes_back)
{
    struct pacer pacer = PACER_INIT;

    pacer_set(&pacer, 1000000, 2 * SECOND);
    assert_int_equal(allows(&pacer, SECOND), 0);
    assert_int_equal(allows(&pacer, 2 * SECOND + 10000), 10000);
    assert_int_equal(allows(&pacer, 2 * SECOND), 10000);
}

TEST(test_set_again)
{
    struct pacer pacer = PACER_INIT;

    pacer_set(&pacer, 1000000, 0);
    assert_int_equal(allows(&pacer, 10000), 10000);
    pacer_set(&pacer, 1000, 10000); /* what was saved up at the old rate is not spent at the new */
    assert_int_equal(allows(&pacer, 10000), 0);
    assert_int_equal(allows(&pacer, 20000), 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_rate),     CASE(test_rate_with_late_timers), CASE(test_rate_with_other_events),
        CASE(test_burst),    CASE(test_large_rates_are_exact), CASE(test_no_limit),
        CASE(test_extremes), CASE(test_time_goes_back),        CASE(test_set_again),
    };

    return cmocka_run_group_tests_name("pacer", tests, NULL, NULL);
}
