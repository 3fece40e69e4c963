/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "rig.h"

/* A script; it lives as long as the case that has it. */
#define STEPS(...) ((const struct step[]){__VA_ARGS__, {0}})

#define SETUP                 \
    {                         \
        QEMU_PRECOPY, "setup" \
    }
#define ACTIVE                                      \
    {                                               \
        QEMU_PRECOPY, "active", .transferred = 4096 \
    }
#define POSTCOPY                         \
    {                                    \
        QEMU_POSTCOPY, "postcopy-active" \
    }
#define PAUSED                         \
    {                                  \
        QEMU_PAUSED, "postcopy-paused" \
    }
#define COMPLETED                             \
    {                                         \
        QEMU_DONE, "completed", "postmigrate" \
    }
#define FAILED                \
    {                         \
        QEMU_FAILED, "failed" \
    }
#define CANCELLED                   \
    {                               \
        QEMU_CANCELLED, "cancelled" \
    }
#define ARRIVED                           \
    {                                     \
        QEMU_DONE, "completed", "running" \
    }
#define CTRL_C                                 \
    {                                          \
        QEMU_PRECOPY, "active", .ctrl_c = true \
    }

static void ends_with(int status, const char *log, const char *text)
{
    int r = drive_run(&rig.ends, &rig.trouble);

    if (strcmp(rig.log, log) != 0)
        fail_msg("it was: %s", rig.log);
    assert_int_equal(r < 0 ? rig.trouble.status : r, status);
    assert_true((r < 0) == (text != NULL));
    if (text && !strstr(rig.trouble.text, text))
        fail_msg("'%s' is not in: %s", text, rig.trouble.text);
    trouble_clear(&rig.trouble);
}

TEST(pre_copy_is_left_alone)
{
    begin(STEPS(SETUP, ACTIVE, ACTIVE, COMPLETED), STEPS(ARRIVED));
    ends_with(STATUS_DONE, "source migrates", NULL);
    assert_non_null(strstr(rig.said, "web1: done"));
}

TEST(a_socket_of_another_user_is_not_used)
{
    begin(STEPS(SETUP), STEPS(SETUP));
    rig.socket_refused = true;
    ends_with(STATUS_DENIED, "near cut, far cut, source restored, destination restored", "another user's");
}

TEST(a_failure_takes_everything_back)
{
    begin(STEPS(SETUP, ACTIVE, FAILED), STEPS(FAILED));
    rig.tunnel_result = "";
    ends_with(STATUS_FAILED, "source migrates, near cut, far cut, source restored, destination restored",
              "was not moved; it runs on at the source. QEMU says: no more luck.");
}

/* One that was there before, for a paused post-copy, is not vmferryctl's to end. */
TEST(a_tunnel_that_was_found_stays)
{
    begin(STEPS(FAILED), STEPS(FAILED));
    rig.ends.found = rig.ends.resume = true;
    ends_with(STATUS_FAILED, "source resumes, source restored, destination restored", "no more luck");
}

TEST(ctrl_c_cancels_pre_copy)
{
    begin(STEPS(SETUP, CTRL_C), STEPS(SETUP));
    rig.source.on_cancel = STEPS({QEMU_PRECOPY, "cancelling"}, CANCELLED);
    ends_with(
        STATUS_CANCELLED,
        "source migrates, source migrate_cancel, near cut, far cut, source restored, destination restored",
        "Cancelled: VM 'web1' was not moved; it runs on at the source.");
}

TEST(ctrl_c_may_come_too_late)
{
    begin(STEPS(SETUP, CTRL_C), STEPS(ARRIVED));
    rig.source.on_cancel = STEPS(COMPLETED);
    ends_with(STATUS_DONE, "source migrates, source migrate_cancel", NULL);
}

/* From there on a cancel would lose the VM. */
TEST(ctrl_c_leaves_post_copy_alone)
{
    begin(STEPS(SETUP, ACTIVE, POSTCOPY, {QEMU_POSTCOPY, "postcopy-active", .ctrl_c = true}),
          STEPS({QEMU_POSTCOPY, "postcopy-active", "running"}));
    rig.ctl.arguments.postcopy = POSTCOPY_NOW;
    ends_with(STATUS_FAILED, "source migrates, source migrate-start-postcopy", "goes on by itself");
}

/* As soon as it was asked for: QEMU may have begun. */
TEST(ctrl_c_right_after_asking_for_post_copy)
{
    begin(STEPS(ACTIVE, CTRL_C), STEPS(SETUP));
    rig.ctl.arguments.postcopy = POSTCOPY_NOW;
    ends_with(STATUS_FAILED, "source migrates, source migrate-start-postcopy", "goes on by itself");
}

TEST(post_copy_waits_for_memory_to_flow)
{
    begin(STEPS(SETUP, {QEMU_PRECOPY, "active"}, COMPLETED), STEPS(ARRIVED));
    rig.ctl.arguments.postcopy = POSTCOPY_NOW;
    ends_with(STATUS_DONE, "source migrates", NULL);
}

TEST(post_copy_after_some_time)
{
    begin(STEPS(ACTIVE, ACTIVE, ACTIVE, ACTIVE, ACTIVE, ACTIVE, POSTCOPY, COMPLETED), STEPS(ARRIVED));
    rig.ctl.arguments.postcopy = POSTCOPY_AFTER;
    rig.ctl.arguments.postcopy_after = SECOND;
    ends_with(STATUS_DONE, "source migrates, source migrate-start-postcopy", NULL);
    assert_true(rig.now >= 1001 * SECOND);
}

TEST(post_copy_with_the_fourth_pass)
{
    begin(STEPS({QEMU_PRECOPY, "active", .passes = 3}, COMPLETED), STEPS(ARRIVED));
    rig.ctl.arguments.postcopy = POSTCOPY_AUTO;
    ends_with(STATUS_DONE, "source migrates", NULL);
    rig.log[0] = '\0';
    rig.source.step = STEPS({QEMU_PRECOPY, "active", "running", .passes = 4}, POSTCOPY, COMPLETED);
    ends_with(STATUS_DONE, "source migrates, source migrate-start-postcopy", NULL);
}

/* Post-copy would let a VM run that was stopped. */
TEST(post_copy_is_left_out_for_a_vm_that_stands_still)
{
    begin(STEPS({QEMU_PRECOPY, "active", "paused", .transferred = 1}, ACTIVE, COMPLETED),
          STEPS({QEMU_DONE, "completed", "paused"}));
    rig.ctl.arguments.postcopy = POSTCOPY_NOW;
    ends_with(STATUS_DONE, "source migrates", NULL);
    assert_non_null(strstr(rig.said, "goes without post-copy"));
}

TEST(a_paused_post_copy_is_not_cancelled)
{
    begin(STEPS(POSTCOPY, PAUSED), STEPS(PAUSED));
    ends_with(STATUS_FAILED, "source migrates", "the same command with --resume");
}

TEST(a_paused_post_copy_is_recovered)
{
    begin(STEPS(POSTCOPY, PAUSED), STEPS(PAUSED));
    rig.ctl.arguments.postcopy = POSTCOPY_AUTO;
    rig.source.on_resume = STEPS(PAUSED, POSTCOPY, COMPLETED);
    rig.destination.step = STEPS({QEMU_POSTCOPY, "postcopy-active", "running"}, PAUSED, ARRIVED);
    ends_with(STATUS_DONE, "source migrates, destination listens again, source resumes", NULL);
    assert_non_null(strstr(rig.said, "paused, for the connection was lost"));
    assert_true(rig.now >= 1003 * SECOND); /* at first the destination had not noticed */
}

/* The network took the ssh to its host as well. */
TEST(the_destination_is_reached_anew)
{
    begin(STEPS(POSTCOPY, PAUSED), STEPS(PAUSED, ARRIVED));
    rig.ctl.arguments.postcopy = POSTCOPY_AUTO;
    rig.destination.gone = true;
    rig.source.on_resume = STEPS(POSTCOPY, COMPLETED);
    ends_with(STATUS_DONE,
              "source migrates, host2 reached, destination opened, destination listens again, source resumes",
              NULL);
}

TEST(a_lost_monitor_ends_pre_copy)
{
    begin(STEPS(SETUP, {.gone = true}), STEPS(SETUP));
    ends_with(
        STATUS_FAILED,
        "source migrates, source migrate_cancel, near cut, far cut, source restored, destination restored",
        "The migration is cancelled.");
}

TEST(a_lost_monitor_leaves_post_copy_alone)
{
    begin(STEPS(POSTCOPY, {.gone = true}), STEPS({QEMU_POSTCOPY, "postcopy-active", "running"}));
    ends_with(STATUS_FAILED, "source migrates", "goes on without vmferryctl");
}

/* QEMU's option -S takes the start away that comes with the VM. */
TEST(a_vm_that_arrived_paused_goes_on)
{
    begin(STEPS(ACTIVE, COMPLETED), STEPS({QEMU_DONE, "completed", "paused"}));
    ends_with(STATUS_DONE, "source migrates, destination cont", NULL);
}

TEST(a_vm_that_runs_and_must_not)
{
    begin(STEPS({QEMU_PRECOPY, "active", "paused"}, {QEMU_PRECOPY, "active"}, COMPLETED), STEPS(ARRIVED));
    ends_with(STATUS_FAILED, "source migrates", "Tell QEMU there 'stop'");
}

/* Nothing is taken back then: the source has let it go. */
TEST(a_vm_that_is_nowhere)
{
    begin(STEPS(ACTIVE, COMPLETED), STEPS({QEMU_FAILED, "failed", "shutdown"}));
    ends_with(STATUS_FAILED, "source migrates", "and that the migration has failed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(pre_copy_is_left_alone),
        CASE(a_socket_of_another_user_is_not_used),
        CASE(a_failure_takes_everything_back),
        CASE(a_tunnel_that_was_found_stays),
        CASE(ctrl_c_cancels_pre_copy),
        CASE(ctrl_c_may_come_too_late),
        CASE(ctrl_c_leaves_post_copy_alone),
        CASE(ctrl_c_right_after_asking_for_post_copy),
        CASE(post_copy_waits_for_memory_to_flow),
        CASE(post_copy_after_some_time),
        CASE(post_copy_with_the_fourth_pass),
        CASE(post_copy_is_left_out_for_a_vm_that_stands_still),
        CASE(a_paused_post_copy_is_not_cancelled),
        CASE(a_paused_post_copy_is_recovered),
        CASE(the_destination_is_reached_anew),
        CASE(a_lost_monitor_ends_pre_copy),
        CASE(a_lost_monitor_leaves_post_copy_alone),
        CASE(a_vm_that_arrived_paused_goes_on),
        CASE(a_vm_that_runs_and_must_not),
        CASE(a_vm_that_is_nowhere),
    };

    return cmocka_run_group_tests_name("ctl-drive", tests, NULL, NULL);
}
