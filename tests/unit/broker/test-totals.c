/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "migration/migration-rig.h"

#include "broker/migration/accounts.h"
#include "broker/migration/telling.h"
#include "common/clock.h"

static const struct outcome moved = {.outcome = VF_OUTCOME_MOVED, .downtime = 40000};

/* Where the word stands in a line. */
static uint32_t at(const char *word)
{
    for (uint32_t i = 0; i < TOTALS_WORDS; i++)
        if (strcmp(totals_word(i), word) == 0)
            return i;
    fail_msg("There is no word '%s'.", word);
    return 0;
}

static uint64_t n_of(const struct rig *rig, const char *word)
{
    return rig->totals.sums.migrations[ROLE_OUTGOING][at(word)];
}

static uint64_t n_all(const struct rig *rig)
{
    uint64_t n = 0;

    for (uint32_t i = 0; i < TOTALS_ROLES * TOTALS_WORDS; i++)
        n += rig->totals.sums.migrations[i / TOTALS_WORDS][i % TOTALS_WORDS];
    return n;
}

static struct migration *finished(struct rig *rig, bool told)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    struct migration *migration;
    int helper;

    migration = rig_start(rig, &helper);
    if (told)
        assert_int_equal(telling_outcome(migration_telling(migration), &moved, &error), 0);
    rig_state(rig, helper, STATE_CONNECTED, "");
    rig_result(rig, helper, VF_ERROR_NONE, "");
    assert_int_equal(rig_state_of(migration), STATE_FINISHED);
    return migration;
}

TEST(has_a_word_for_each)
{
    assert_int_equal(at("moved"), 0);
    assert_int_equal(at("carried"), VF_OUTCOME_MAX_ - 1);
    assert_int_equal(at("timed-out"), TOTALS_WORDS - 1);
}

TEST(adds_one_whose_outcome_is_told_once)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    struct migration *migration = finished(rig, true);

    assert_int_equal(n_of(rig, "moved"), 1);
    assert_int_equal(rig->totals.sums.downtime, 40000);
    assert_int_equal(rig->totals.sums.downtimes[1], 0);
    assert_int_equal(rig->totals.sums.downtimes[2], 1);
    migration_forget(migration);
    assert_int_equal(n_all(rig), 1);
}

TEST(adds_one_whose_outcome_comes_late)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    const struct outcome lost = {.outcome = VF_OUTCOME_LOST};
    _cleanup_rig_ struct rig *rig = rig_new(true);
    struct migration *migration = finished(rig, false);

    assert_int_equal(n_all(rig), 0);
    assert_int_equal(telling_outcome(migration_telling(migration), &lost, &error), 0);
    assert_int_equal(n_of(rig, "lost"), 1);
    assert_int_equal(rig->totals.sums.downtimes[TOTALS_BOUNDS], 0);
    assert_int_equal(telling_outcome(migration_telling(migration), &moved, &error),
                     0); /* a counter goes up only */
    assert_int_equal(migration_status(migration)->report.outcome.outcome, VF_OUTCOME_MOVED);
    assert_int_equal(n_of(rig, "lost"), 1);
    assert_int_equal(n_all(rig), 1);
    assert_int_equal(rig->totals.sums.downtimes[TOTALS_BOUNDS], 0);
}

/* A driver tells at once that it has moved, and asks QEMU for the times afterwards. */
TEST(adds_a_downtime_that_comes_late)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    const struct outcome untimed = {.outcome = VF_OUTCOME_MOVED},
                         longer = {.outcome = VF_OUTCOME_MOVED, .downtime = 50000};
    _cleanup_rig_ struct rig *rig = rig_new(true);
    struct migration *migration = finished(rig, false);

    assert_int_equal(telling_outcome(migration_telling(migration), &untimed, &error), 0);
    assert_int_equal(n_of(rig, "moved"), 1);
    assert_int_equal(rig->totals.sums.downtimes[TOTALS_BOUNDS], 0);
    rig_restart(rig);
    migration = registry_next(&rig->registry, NULL)->migration;
    assert_int_equal(telling_outcome(migration_telling(migration), &moved, &error), 0);
    assert_int_equal(n_all(rig), 1);
    assert_int_equal(rig->totals.sums.downtime, 40000);
    rig_restart(rig);
    migration = registry_next(&rig->registry, NULL)->migration;
    assert_int_equal(telling_outcome(migration_telling(migration), &longer, &error), 0);
    assert_int_equal(rig->totals.sums.downtimes[TOTALS_BOUNDS], 1);
}

TEST(adds_one_of_which_nothing_is_told_when_it_is_forgotten)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    struct migration *migration = finished(rig, false);

    rig_restart(rig);
    assert_int_equal(n_all(rig), 0);
    migration = registry_next(&rig->registry, NULL)->migration;
    migration_forget(migration);
    assert_int_equal(n_of(rig, "carried"), 1);
}

TEST(adds_none_twice_over_a_restart)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);

    finished(rig, true);
    rig_restart(rig);
    assert_int_equal(n_of(rig, "moved"), 1);
    migration_forget(registry_next(&rig->registry, NULL)->migration);
    totals_open(&rig->totals, rig->stand_ins.directory);
    assert_int_equal(n_all(rig), 1);
}

/* The broker dies when the totals have it, and its record does not say so yet. */
TEST(adds_none_twice_after_a_kill_in_between)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    struct migration *migration = finished(rig, false);
    const struct identity *identity = migration_identity(migration);
    const struct tally tally = {
        .id = identity->id, .role = identity->role, .started = identity->started, .result = VF_RESULT_DONE};

    totals_add(&rig->totals, &tally);
    rig_restart(rig);
    migration_forget(registry_next(&rig->registry, NULL)->migration);
    assert_int_equal(n_of(rig, "carried"), 1);
}

TEST(takes_the_time_for_which_it_was_interrupted)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    struct totals_sums sums;
    uint64_t before, now;
    int helper;

    rig_start(rig, &helper);
    rig_state(rig, helper, STATE_CONNECTED, "");
    rig_state(rig, helper, STATE_ACTIVE, "");
    before = exact_now();
    rig_state(rig, helper, STATE_INTERRUPTED, "It is gone.");
    usleep(2000);
    rig_turn(rig);
    rig_state(rig, helper, STATE_ACTIVE, "");
    now = exact_now();
    accounts_sum(&rig->services, &sums);
    assert_in_range(sums.interrupted, 2000, now - before);
    assert_int_equal(rig->totals.sums.interrupted, 0); /* not before it is added */
    rig_result(rig, helper, VF_ERROR_NONE, "");
    accounts_sum(&rig->services, &sums);
    assert_in_range(sums.interrupted, 2000, now - before);
}

TEST(begins_anew_where_the_file_is_another)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    char path[PATH_MAX];
    FILE *file;

    finished(rig, true);
    snprintf(path, sizeof(path), "%s/totals", rig->stand_ins.directory);
    file = fopen(path, "w");
    assert_non_null(file);
    fputs("vmftotl1, but short", file);
    assert_int_equal(fclose(file), 0);
    totals_open(&rig->totals, rig->stand_ins.directory);
    assert_int_equal(n_all(rig), 0);
    assert_true(rig->totals.sums.since > 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        CASE(has_a_word_for_each),
        CASE(adds_one_whose_outcome_is_told_once),
        CASE(adds_one_whose_outcome_comes_late),
        CASE(adds_a_downtime_that_comes_late),
        CASE(adds_one_of_which_nothing_is_told_when_it_is_forgotten),
        CASE(adds_none_twice_over_a_restart),
        CASE(adds_none_twice_after_a_kill_in_between),
        CASE(takes_the_time_for_which_it_was_interrupted),
        CASE(begins_anew_where_the_file_is_another),
    };

    return cmocka_run_group_tests_name("broker-totals", tests, NULL, NULL);
}
