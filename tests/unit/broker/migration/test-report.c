/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "broker/migration/report.h"

static double said(struct report *report, uint32_t phase, uint32_t pass, uint64_t remaining)
{
    const struct progress progress = {
        .phase = phase, .pass = pass, .memory_total = 1000, .memory_remaining = remaining};

    report_update(report, &progress, 0);
    return report_fraction(report);
}

static bool about(double a, double b)
{
    return a > b - 0.001 && a < b + 0.001;
}

TEST(never_goes_back_within_a_pass)
{
    struct report report = {0};

    assert_true(report_fraction(&report) < 0);
    assert_true(about(said(&report, REPORT_PHASE_PRECOPY, 1, 1000), 0));
    assert_true(about(said(&report, REPORT_PHASE_PRECOPY, 1, 300), 0.7));
    assert_true(about(said(&report, REPORT_PHASE_PRECOPY, 1, 400), 0.7));
    assert_true(about(said(&report, REPORT_PHASE_PRECOPY, 2, 800), 0.2));
    assert_true(about(said(&report, REPORT_PHASE_POSTCOPY, 2, 900), 0.1));
}

TEST(is_all_only_when_the_vm_has_moved)
{
    struct report report = {0};

    assert_true(about(said(&report, REPORT_PHASE_FINISHING, 1, 0), 0.99));
    report.outcome.outcome = VF_OUTCOME_LOST;
    assert_true(about(report_fraction(&report), 0.99));
    report.outcome.outcome = VF_OUTCOME_MOVED;
    assert_true(report_fraction(&report) == 1);
}

TEST(tells_how_long_it_takes)
{
    struct report report = {0};
    struct progress progress = {.memory_total = 1000, .memory_remaining = 500, .dirty_rate = 50};

    report_update(&report, &progress, 150);
    assert_int_equal(report.remaining, 5000000);
    report_update(&report, &progress, 50); /* the guest is as fast: there is no end */
    assert_int_equal(report.remaining, 0);
}

TEST(tells_of_the_disks_while_they_go)
{
    struct report report = {0};
    struct progress progress = {.phase = REPORT_PHASE_DISKS,
                                .memory_total = 1000,
                                .memory_remaining = 1000,
                                .disk_total = 400,
                                .disk_remaining = 300};

    report_update(&report, &progress, 100);
    assert_true(about(report_fraction(&report), 0.25));
    assert_int_equal(report.remaining, 3000000);
    progress.phase = REPORT_PHASE_PRECOPY;
    report_update(&report, &progress, 100);
    assert_true(about(report_fraction(&report), 0));
    assert_int_equal(report.remaining, 10000000);
}

TEST(the_own_owner_has_the_last_word)
{
    const struct outcome moved = {.outcome = VF_OUTCOME_MOVED}, lost = {.outcome = VF_OUTCOME_LOST};
    struct report report = {0};

    assert_true(report_may_set(&report, &moved, REPORT_BY_PEER));
    report.outcome = moved;
    report.by = REPORT_BY_PEER;
    assert_false(report_may_set(&report, &moved, REPORT_BY_PEER));
    assert_true(report_may_set(&report, &lost, REPORT_BY_PEER));
    assert_true(report_may_set(&report, &lost, REPORT_BY_OWNER));
    report.by = REPORT_BY_OWNER;
    assert_false(report_may_set(&report, &lost, REPORT_BY_PEER));
    assert_true(report_may_set(&report, &lost, REPORT_BY_OWNER));
}

TEST(names)
{
    for (uint32_t i = 1; i < REPORT_PHASE_MAX_; i++)
        assert_int_equal(report_phase_of(report_phase_text(i)), i);
    assert_int_equal(report_phase_of(""), REPORT_PHASE_NONE);
    assert_null(report_phase_text(REPORT_PHASE_MAX_));
    for (uint32_t i = 1; i < VF_OUTCOME_MAX_; i++)
        assert_int_equal(vf_outcome_from_string(vf_outcome_to_string(i)), i);
    assert_int_equal(vf_outcome_from_string(""), VF_OUTCOME_NONE);
    assert_null(vf_outcome_to_string(VF_OUTCOME_MAX_));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        CASE(never_goes_back_within_a_pass),   CASE(is_all_only_when_the_vm_has_moved),
        CASE(tells_how_long_it_takes),         CASE(tells_of_the_disks_while_they_go),
        CASE(the_own_owner_has_the_last_word), CASE(names),
    };

    return cmocka_run_group_tests_name("broker-migration-report", tests, NULL, NULL);
}
