/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "migration-rig.h"

#include "broker/migration/telling.h"

/* What owners report: when it is signalled, what goes to the helper, and what a restart keeps. */

static const struct progress half = {
    .phase = REPORT_PHASE_PRECOPY, .pass = 1, .memory_total = 100, .memory_remaining = 50};
static const struct outcome moved = {
    .outcome = VF_OUTCOME_MOVED, .downtime = 6000, .host = "host2", .run_state = "running"};

static void reports(struct migration *migration)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;

    assert_true(telling_progress(migration_telling(migration), &half, &error) >= 0);
}

static void tells(struct migration *migration, const struct outcome *outcome)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;

    assert_true(telling_outcome(migration_telling(migration), outcome, &error) >= 0);
}

static const struct report *report_of(const struct migration *migration)
{
    return &migration_status(migration)->report;
}

/* Its helper knows these messages. */
static void connects(struct rig *rig, int helper, uint32_t features)
{
    union message m = {
        .state_changed = {.state = STATE_CONNECTED, .features = features, .peer = "tcp:192.0.2.1:1"}};

    helper_says(helper, MESSAGE_STATE, m);
    rig_turn(rig);
}

static void peer_tells(struct rig *rig, int helper, enum vf_outcome outcome)
{
    union message m = {.peer_outcome.outcome.outcome = outcome};

    helper_says(helper, MESSAGE_PEER_OUTCOME, m);
    rig_turn(rig);
}

TEST(progress_is_signalled_once_a_second)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    int helper;
    struct migration *migration = rig_start(rig, &helper);

    reports(migration);
    assert_int_equal(rig_changed(rig), CHANGE_PROGRESS);
    reports(migration);
    reports(migration);
    assert_int_equal(rig_changed(rig), 0);
    rig_wait(rig, &rig->changed, CHANGE_PROGRESS);
    rig_changed(rig);
    reports(migration);
    assert_int_equal(rig_changed(rig), 0);
}

TEST(too_many_reports_are_refused)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    int helper, n = 0;
    struct migration *migration = rig_start(rig, &helper);

    while (n < 100 && telling_progress(migration_telling(migration), &half, &error) >= 0)
        n++;
    assert_int_equal(n, 8);
    assert_string_equal(error.name, "org.vmferry.Error.LimitExceeded");
}

TEST(the_helper_hears_of_it)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    union message m;
    int helper;
    struct migration *migration = rig_start(rig, &helper);

    tells(migration, &moved); /* before it is known whether the helper takes it */
    assert_int_equal(rig_changed(rig), CHANGE_OUTCOME);
    connects(rig, helper, HELPER_OUTCOMES);
    m = helper_hears(helper, MESSAGE_HOLD, NULL);
    assert_int_equal(m.hold.usec, 0);
    m = helper_hears(helper, MESSAGE_OUTCOME, NULL);
    assert_int_equal(m.outcome.outcome.downtime, 6000);
    assert_string_equal(m.outcome.outcome.host, "host2");
    reports(migration);
    m = helper_hears(helper, MESSAGE_HOLD, NULL);
    assert_int_equal(m.hold.usec, 5000000);
    assert_true(migration_status(migration)->report.outcome.outcome == VF_OUTCOME_MOVED);
}

TEST(a_helper_of_before_hears_nothing)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    int helper;
    struct migration *migration = rig_start(rig, &helper);

    connects(rig, helper, 0);
    reports(migration);
    tells(migration, &moved);
    migration_stop(migration, VF_ERROR_CANCELLED, "by the test");
    helper_hears(helper, MESSAGE_END, NULL); /* and nothing before */
}

TEST(the_peers_word_counts_until_the_owner_speaks)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    int helper;
    struct migration *migration = rig_prepare(rig, &helper);

    connects(rig, helper, HELPER_OUTCOMES);
    rig_changed(rig);
    peer_tells(rig, helper, VF_OUTCOME_LOST);
    assert_int_equal(rig_changed(rig), CHANGE_OUTCOME);
    assert_int_equal(report_of(migration)->by, REPORT_BY_PEER);
    peer_tells(rig, helper, VF_OUTCOME_LOST);
    assert_int_equal(rig_changed(rig), 0);
    tells(migration, &moved);
    peer_tells(rig, helper, VF_OUTCOME_LOST);
    assert_int_equal(report_of(migration)->outcome.outcome, VF_OUTCOME_MOVED);
    assert_int_equal(report_of(migration)->by, REPORT_BY_OWNER);
}

TEST(a_source_has_no_peer_that_tells)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    int helper;
    struct migration *migration = rig_start(rig, &helper);

    connects(rig, helper, HELPER_OUTCOMES);
    peer_tells(rig, helper, VF_OUTCOME_MOVED);
    assert_int_equal(migration_identity(migration)->error, VF_ERROR_HELPER_FAILED);
}

TEST(a_restart_keeps_it)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    const struct migration *migration;
    struct report before;
    int helper;

    migration = rig_start(rig, &helper);
    connects(rig, helper, HELPER_OUTCOMES);
    reports(registry_next(&rig->registry, NULL)->migration);
    tells(registry_next(&rig->registry, NULL)->migration, &moved);
    before = *report_of(migration);
    rig_restart(rig);
    migration = registry_next(&rig->registry, NULL)->migration;
    assert_memory_equal(report_of(migration), &before, sizeof(before));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        CASE(progress_is_signalled_once_a_second),
        CASE(too_many_reports_are_refused),
        CASE(the_helper_hears_of_it),
        CASE(a_helper_of_before_hears_nothing),
        CASE(the_peers_word_counts_until_the_owner_speaks),
        CASE(a_source_has_no_peer_that_tells),
        CASE(a_restart_keeps_it),
    };

    return cmocka_run_group_tests_name("broker-migration-telling", tests, NULL, NULL);
}
