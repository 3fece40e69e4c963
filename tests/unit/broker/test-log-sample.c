/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "broker/log-sample.h"
#include "common/cleanup.h"

static const uint64_t start = 1000000000, interval = LOG_SAMPLE_INTERVAL;

/* How many of so many events at this moment are logged. */
static uint32_t logged(struct log_samples *samples, const char *key, uint32_t events, uint64_t now)
{
    uint32_t n = 0, of_key, of_all;

    for (uint32_t i = 0; i < events; i++)
        n += log_samples_at(samples, key, now, &of_key, &of_all);
    return n;
}

TEST(each_interval_has_its_lines_and_then_what_was_suppressed)
{
    struct log_sample sample = {0};
    uint32_t suppressed, n = 0;

    for (uint32_t i = 0; i < 1000000; i++) {
        n += log_sample_at(&sample, LOG_SAMPLE_BURST, start, &suppressed);
        assert_int_equal(suppressed, 0);
    }
    assert_int_equal(n, LOG_SAMPLE_BURST);
    assert_false(log_sample_at(&sample, LOG_SAMPLE_BURST, start + interval - 1, &suppressed));
    assert_true(log_sample_at(&sample, LOG_SAMPLE_BURST, start + interval, &suppressed));
    assert_int_equal(suppressed, 1000000 - LOG_SAMPLE_BURST + 1);
    assert_true(log_sample_at(&sample, LOG_SAMPLE_BURST, start + interval, &suppressed));
    assert_int_equal(suppressed, 0);
}

TEST(one_does_not_hide_another)
{
    struct log_samples samples = {0};

    assert_int_equal(logged(&samples, "uid 65534", 5000, start), LOG_SAMPLE_BURST);
    assert_int_equal(logged(&samples, "uid 1", 3000, start), LOG_SAMPLE_BURST);
    assert_int_equal(logged(&samples, "uid 65534", 5000, start), 0);
    assert_int_equal(logged(&samples, "uid 65534", 5000, start + interval), LOG_SAMPLE_BURST);
}

TEST(all_together_have_a_bound)
{
    struct log_samples samples = {0};
    uint32_t n = 0, of_key, of_all;

    for (uint32_t i = 0; i < 10000; i++) {
        char key[32];

        snprintf(key, sizeof(key), "tcp:[2001:db8::%x]", i);
        n += logged(&samples, key, 20, start + i);
    }
    assert_int_equal(n, LOG_SAMPLE_ALL);
    assert_true(log_samples_at(&samples, "another", start + 2 * interval, &of_key, &of_all));
    assert_true(of_all > 9000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(each_interval_has_its_lines_and_then_what_was_suppressed),
        CASE(one_does_not_hide_another),
        CASE(all_together_have_a_bound),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
