/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "broker/helpers/spares.h"

enum { SECOND = 1000000, MINUTE = 60 * SECOND };

static const uint64_t START = (uint64_t)86400 * SECOND; /* of a host that has run for a day */

/* So many are taken, one each pause µs; returns when the last one was. */
static uint64_t take(struct spares *spares, unsigned n, uint64_t now, uint64_t pause)
{
    for (unsigned i = 0; i < n; i++)
        spares_take(spares, now + i * pause);
    return now + (n - 1) * pause;
}

TEST(one_is_kept_before_any_was_taken)
{
    struct spares spares = {.max = 24};

    assert_int_equal(spares_wanted(&spares, START), 1);
    assert_int_equal(spares_fall_in(&spares, START), UINT64_MAX);
}

TEST(none_is_kept_where_there_may_be_none)
{
    struct spares spares = {.max = 0};
    uint64_t now = take(&spares, 5, START, 1000);

    assert_int_equal(spares_wanted(&spares, now), 0);
}

TEST(as_many_are_kept_as_were_taken_together)
{
    struct spares spares = {.max = 24};
    uint64_t now = take(&spares, 20, START, 10000);

    assert_int_equal(spares_wanted(&spares, now), 20);
    now = take(&spares, 3, now + 10 * SECOND, 10000);
    assert_int_equal(spares_wanted(&spares, now), 20); /* fewer since then change nothing */
}

TEST(there_are_never_more_than_may_be)
{
    struct spares spares = {.max = 24};
    uint64_t now = take(&spares, 1000, START, 100);

    assert_int_equal(spares_wanted(&spares, now), 24);
    spares.max = 2; /* the configuration was read again */
    assert_int_equal(spares_wanted(&spares, now), 2);
    spares.max = 24;
    assert_int_equal(spares_wanted(&spares, now), 24);
}

/* For hours: each of them is followed by a new spare before the next one is taken. */
TEST(those_that_come_one_by_one_need_few)
{
    struct spares spares = {.max = 24};
    uint64_t now = take(&spares, 20000, START, SECOND);

    assert_int_equal(spares_wanted(&spares, now), 2);
}

TEST(what_was_not_needed_for_long_is_given_up)
{
    struct spares spares = {.max = 24};
    uint64_t now = take(&spares, 20, START, 10000), fall;

    fall = spares_fall_in(&spares, now);
    assert_between(fall, 1, SPARES_PERIOD);
    now += fall;
    assert_int_equal(spares_wanted(&spares, now), 20); /* in the last period they were */
    now = take(&spares, 4, now, 1000);
    now += spares_fall_in(&spares, now);
    assert_int_equal(spares_wanted(&spares, now), 4);
    now += spares_fall_in(&spares, now);
    assert_int_equal(spares_wanted(&spares, now), 1);
    assert_int_equal(spares_fall_in(&spares, now), UINT64_MAX);
}

TEST(a_broker_that_was_not_looked_at_for_hours_keeps_one)
{
    struct spares spares = {.max = 24};
    uint64_t now = take(&spares, 20, START, 10000);

    assert_int_equal(spares_wanted(&spares, now + (uint64_t)300 * MINUTE), 1);
    take(&spares, 2, now + (uint64_t)300 * MINUTE, 1000);
    assert_int_equal(spares_wanted(&spares, now + (uint64_t)301 * MINUTE), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(one_is_kept_before_any_was_taken),
        CASE(none_is_kept_where_there_may_be_none),
        CASE(as_many_are_kept_as_were_taken_together),
        CASE(there_are_never_more_than_may_be),
        CASE(those_that_come_one_by_one_need_few),
        CASE(what_was_not_needed_for_long_is_given_up),
        CASE(a_broker_that_was_not_looked_at_for_hours_keeps_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
