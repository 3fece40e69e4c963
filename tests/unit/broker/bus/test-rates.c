/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "broker/bus/rates.h"
#include "common/cleanup.h"

static const uint64_t second = 1000000;

/* How many of so many calls of that work are served at this moment. */
static uint32_t served(struct rates *rates, const char *sender, uint32_t calls, uint32_t work, uint64_t now)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < calls; i++)
        n += rates_admit(rates, sender, work, now);
    return n;
}

TEST(a_bucket_is_full_at_first_and_fills_again)
{
    static const struct rate_limit limit = {.per_second = 10, .burst = 20};
    struct rate rate = {0};

    for (int i = 0; i < 20; i++)
        assert_true(rate_take(&rate, &limit, 1, second));
    assert_false(rate_take(&rate, &limit, 1, second));
    assert_false(rate_take(&rate, &limit, 1, second + second / 10 - 1));
    assert_true(rate_take(&rate, &limit, 1, second + second / 10));
    assert_false(rate_take(&rate, &limit, 1, second + second / 10));
    assert_false(rate_take(&rate, &limit, 1, second)); /* a clock that goes back gives nothing */
}

TEST(what_costs_more_than_the_bucket_has_costs_all_of_it)
{
    static const struct rate_limit limit = {.per_second = 10, .burst = 20};
    struct rate rate = {0};

    assert_true(rate_take(&rate, &limit, 5000, UINT64_MAX / 2));
    assert_false(rate_take(&rate, &limit, 1, UINT64_MAX / 2));
    assert_true(rate_take(&rate, &limit, 5000, UINT64_MAX));
}

TEST(root_is_not_charged)
{
    struct rates rates;

    assert_int_equal(rates_init(&rates, NULL, NULL, NULL), 0);
    assert_true(rates_admit(&rates, ":1.1", 1, second));
    rates_know(&rates, ":1.1", 0);
    assert_int_equal(served(&rates, ":1.1", 100000, 1000, second), 100000);
    rates_clear(&rates);
}

TEST(a_user_is_charged_over_all_connections)
{
    struct rates rates;
    uint32_t n = 0;

    rates_init(&rates, NULL, NULL, NULL);
    for (unsigned i = 0; i < 100; i++) {
        char name[16];

        snprintf(name, sizeof(name), ":1.%u", i);
        assert_true(rates_admit(&rates, name, 1, second));
        rates_know(&rates, name, 65534);
        n += served(&rates, name, 10000, 1, second);
    }
    assert_int_equal(n, 1000);
    assert_between(served(&rates, ":1.5", 100000, 1, 2 * second), 499, 500); /* of one connection */
    /* Another user has its own. */
    assert_true(rates_admit(&rates, ":2.1", 1, second));
    rates_know(&rates, ":2.1", 1000);
    assert_int_equal(served(&rates, ":2.1", 10000, 1, second), 500);
    rates_clear(&rates);
}

TEST(a_connection_that_is_not_known_yet_has_a_few_calls)
{
    struct rates rates;
    uint32_t n = 0;

    rates_init(&rates, NULL, NULL, NULL);
    for (unsigned i = 0; i < 500; i++) {
        char name[16];

        snprintf(name, sizeof(name), ":1.%u", i);
        n += served(&rates, name, 1000, 1, second);
    }
    assert_int_equal(n, 500 * 40 + 1000);
    assert_true(rates_admit(&rates, ":2.1", 1, second));    /* so root can begin */
    assert_false(rates_admit(&rates, ":2.1", 500, second)); /* but not with that */
    rates_clear(&rates);
}

TEST(only_so_many_are_remembered)
{
    struct rates rates;

    rates_init(&rates, NULL, NULL, NULL);
    for (unsigned i = 0; i < 5000; i++) {
        char name[16];

        snprintf(name, sizeof(name), ":1.%u", i);
        assert_true(rates_admit(&rates, name, 1, second));
        rates_know(&rates, name, i + 1);
        assert_true(rates_admit(&rates, name, 1, second));
    }
    assert_int_equal(rates.n_senders, RATES_SENDERS);
    assert_int_equal(rates.n_users, RATES_USERS);
    rates_gone(&rates, ":1.4999");
    rates_gone(&rates, ":1.4999");
    rates_gone(&rates, ":1.1"); /* forgotten long ago */
    assert_int_equal(rates.n_senders, RATES_SENDERS - 1);
    rates_clear(&rates);
    assert_int_equal(rates.n_senders + rates.n_users, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_bucket_is_full_at_first_and_fills_again),
        CASE(what_costs_more_than_the_bucket_has_costs_all_of_it),
        CASE(root_is_not_charged),
        CASE(a_user_is_charged_over_all_connections),
        CASE(a_connection_that_is_not_known_yet_has_a_few_calls),
        CASE(only_so_many_are_remembered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
