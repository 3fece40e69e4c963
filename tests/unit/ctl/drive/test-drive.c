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
#define ARRIVED                \
    {                          \
        QEMU_DONE, "completed" \
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
    ends_with(STATUS_DONE, "source migrates, destination cont, source restored, destination restored", NULL);
    assert_non_null(strstr(rig.said, "web1: done"));
    assert_string_equal(rig.outcome, "moved");
}

/* Once, with the times where the source knows them, and else once more. */
TEST(that_it_moved_is_told_once)
{
    begin(STEPS(SETUP, ACTIVE, COMPLETED), STEPS(ARRIVED));
    rig.took = 5;
    ends_with(STATUS_DONE, "source migrates, destination cont, source restored, destination restored", NULL);
    assert_int_equal(rig.n_outcomes, 1);

    begin(STEPS(SETUP, ACTIVE, COMPLETED), STEPS(ARRIVED));
    rig.took = 5;
    rig.knows_late = 1;
    ends_with(STATUS_DONE, "source migrates, destination cont, source restored, destination restored", NULL);
    assert_int_equal(rig.n_outcomes, 2);
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
    ends_with(
        STATUS_FAILED, "source migrates, near cut, far cut, source restored, destination restored",
        "was not moved; it runs on at the source; QEMU at host2 says: no more luck; end it, and start it "
        "anew before the next try. QEMU says: no more luck.");
    assert_string_equal(rig.outcome, "not-moved");
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
    assert_string_equal(rig.outcome, "not-moved");
}

TEST(ctrl_c_may_come_too_late)
{
    begin(STEPS(SETUP, CTRL_C), STEPS(ARRIVED));
    rig.source.on_cancel = STEPS(COMPLETED);
    ends_with(
        STATUS_DONE,
        "source migrates, source migrate_cancel, destination cont, source restored, destination restored",
        NULL);
    assert_string_equal(rig.outcome, "moved");
}

/* From there on a cancel would lose the VM. */
TEST(ctrl_c_leaves_post_copy_alone)
{
    begin(STEPS(SETUP, ACTIVE, POSTCOPY, POSTCOPY, POSTCOPY,
                {QEMU_POSTCOPY, "postcopy-active", .ctrl_c = true}),
          STEPS(POSTCOPY));
    rig.ctl.arguments.postcopy = POSTCOPY_NOW;
    ends_with(STATUS_FAILED, "source migrates, source migrate-start-postcopy, destination cont",
              "goes on by itself");
    assert_null(strstr(rig.said, "Ctrl-C once more"));
    assert_string_equal(rig.outcome, "");
}

/* As soon as it was asked for: QEMU may have begun, and the VM is to run again before it is left. */
TEST(ctrl_c_right_after_asking_for_post_copy)
{
    begin(STEPS(ACTIVE, CTRL_C, POSTCOPY), STEPS(POSTCOPY));
    rig.ctl.arguments.postcopy = POSTCOPY_NOW;
    ends_with(STATUS_FAILED, "source migrates, source migrate-start-postcopy, destination cont",
              "goes on by itself");
    assert_non_null(strstr(rig.said, "Ctrl-C once more"));
}

/* The second one does not wait; nothing is cancelled all the same. */
TEST(ctrl_c_twice_after_asking_for_post_copy)
{
    begin(STEPS(ACTIVE, CTRL_C, CTRL_C), STEPS(SETUP));
    rig.ctl.arguments.postcopy = POSTCOPY_NOW;
    ends_with(STATUS_FAILED, "source migrates, source migrate-start-postcopy",
              "left in the middle of its hand-over");
}

TEST(post_copy_waits_for_memory_to_flow)
{
    begin(STEPS(SETUP, {QEMU_PRECOPY, "active"}, COMPLETED), STEPS(ARRIVED));
    rig.ctl.arguments.postcopy = POSTCOPY_NOW;
    ends_with(STATUS_DONE, "source migrates, destination cont, source restored, destination restored", NULL);
}

TEST(post_copy_after_some_time)
{
    begin(STEPS(ACTIVE, ACTIVE, ACTIVE, ACTIVE, ACTIVE, ACTIVE, POSTCOPY, COMPLETED), STEPS(ARRIVED));
    rig.ctl.arguments.postcopy = POSTCOPY_AFTER;
    rig.ctl.arguments.postcopy_after = SECOND;
    ends_with(STATUS_DONE,
              "source migrates, source migrate-start-postcopy, destination cont, source restored, "
              "destination restored",
              NULL);
    assert_true(rig.now >= 1001 * SECOND);
}

TEST(post_copy_with_the_fourth_pass)
{
    begin(STEPS({QEMU_PRECOPY, "active", .passes = 3}, COMPLETED), STEPS(ARRIVED));
    rig.ctl.arguments.postcopy = POSTCOPY_AUTO;
    ends_with(STATUS_DONE, "source migrates, destination cont, source restored, destination restored", NULL);
    begin(STEPS({QEMU_PRECOPY, "active", .passes = 4}, POSTCOPY, COMPLETED), STEPS(ARRIVED));
    rig.ctl.arguments.postcopy = POSTCOPY_AUTO;
    ends_with(STATUS_DONE,
              "source migrates, source migrate-start-postcopy, destination cont, source restored, "
              "destination restored",
              NULL);
}

/* Post-copy would let a VM run that was stopped. */
TEST(post_copy_is_left_out_for_a_vm_that_stands_still)
{
    begin(STEPS({QEMU_PRECOPY, "active", "paused", .transferred = 1}, ACTIVE, COMPLETED), STEPS(ARRIVED));
    is_there("paused");
    rig.ctl.arguments.postcopy = POSTCOPY_NOW;
    ends_with(STATUS_DONE, "source migrates, source restored, destination restored", NULL);
    assert_non_null(strstr(rig.said, "goes without post-copy"));
}

TEST(a_paused_post_copy_is_not_cancelled)
{
    begin(STEPS(POSTCOPY, POSTCOPY, POSTCOPY, PAUSED), STEPS(PAUSED));
    ends_with(STATUS_FAILED, "source migrates, destination cont", "the same command with --resume");
    assert_string_equal(rig.outcome, "");
}

TEST(a_paused_post_copy_is_recovered)
{
    begin(STEPS(POSTCOPY, POSTCOPY, POSTCOPY, PAUSED), STEPS(POSTCOPY, POSTCOPY, PAUSED, PAUSED, ARRIVED));
    rig.ctl.arguments.postcopy = POSTCOPY_AUTO;
    rig.source.on_resume = STEPS(PAUSED, POSTCOPY, COMPLETED);
    ends_with(STATUS_DONE,
              "source migrates, destination cont, destination listens again, source resumes, "
              "source restored, destination restored",
              NULL);
    assert_non_null(strstr(rig.said, "paused, for the connection was lost"));
    assert_true(rig.now >= 1003 * SECOND); /* at first the destination had not noticed */
    assert_string_equal(rig.outcome, "moved");
    assert_string_equal(rig.phases, "post-copy, paused, recovering, post-copy, finishing");
}

static void gets_another_tunnel(const char *state)
{
    begin(STEPS(POSTCOPY, POSTCOPY, POSTCOPY, PAUSED), STEPS(PAUSED, PAUSED, ARRIVED));
    rig.ctl.arguments.postcopy = POSTCOPY_AUTO;
    rig.tunnel_state = state;
    rig.source.on_resume = STEPS(POSTCOPY, COMPLETED);
    ends_with(STATUS_DONE,
              "source migrates, destination cont, near cut, far cut, far prepared, near started, "
              "destination listens again, source resumes, source restored, destination restored",
              NULL);
}

/* Where the brokers have given up theirs, or know nothing of it after a restart. */
TEST(a_paused_post_copy_gets_another_tunnel)
{
    gets_another_tunnel("finished");
    gets_another_tunnel(NULL);
}

/* What another vmferryctl left, after the brokers have forgotten its tunnel. */
static void take_over(void)
{
    rig.ends.resume = rig.ends.taken = rig.ends.found = true;
    rig.ends.tunnel = rig.ends.destination_tunnel = (struct tunnel){0};
}

TEST(a_migration_that_is_done_is_taken_over)
{
    begin(STEPS(COMPLETED), STEPS(ARRIVED));
    take_over();
    ends_with(STATUS_DONE, "destination cont, source restored, destination restored", NULL);
    assert_null(strstr(rig.said, "The tunnel")); /* none is missed */
}

TEST(a_post_copy_that_is_taken_over_gets_another_tunnel)
{
    begin(STEPS(POSTCOPY, POSTCOPY, POSTCOPY, PAUSED), STEPS(PAUSED, PAUSED, ARRIVED));
    take_over();
    rig.ctl.arguments.postcopy = POSTCOPY_AUTO;
    rig.source.on_resume = STEPS(POSTCOPY, COMPLETED);
    ends_with(STATUS_DONE,
              "destination cont, far prepared, near started, destination listens again, source resumes, "
              "source restored, destination restored",
              NULL);
}

/* Lost before the VM was started: it has the devices' state, and nothing is in the way. */
TEST(a_post_copy_is_paused_in_the_hand_over)
{
    begin(STEPS(POSTCOPY, PAUSED), STEPS(PAUSED));
    ends_with(STATUS_FAILED, "source migrates, destination cont", "the same command with --resume");
}

/* The network took the ssh to its host as well. */
TEST(the_destination_is_reached_anew)
{
    begin(STEPS(POSTCOPY, PAUSED), STEPS(PAUSED, PAUSED, ARRIVED));
    rig.ctl.arguments.postcopy = POSTCOPY_AUTO;
    rig.destination.gone = true;
    is_there("running");
    rig.source.on_resume = STEPS(POSTCOPY, COMPLETED);
    ends_with(STATUS_DONE,
              "source migrates, host2 reached, destination opened, destination listens again, source "
              "resumes, source restored, destination restored",
              NULL);
}

TEST(a_lost_monitor_ends_pre_copy)
{
    begin(STEPS(SETUP, {.gone = true}), STEPS(SETUP));
    ends_with(
        STATUS_FAILED,
        "source migrates, source migrate_cancel, near cut, far cut, source restored, destination restored",
        "The migration is cancelled.");
    assert_string_equal(rig.outcome, "unknown");
}

/* The VM is there, but whether the source has let go cannot be asked any more: that is for people to see. */
TEST(a_lost_monitor_does_not_start_the_vm)
{
    begin(STEPS(ACTIVE, {.gone = true}), STEPS(ARRIVED));
    is_there("paused");
    rig.source.ended = true;
    ends_with(
        STATUS_FAILED,
        "source migrates, source migrate_cancel, near cut, far cut, source restored, destination restored",
        "where it stands still ('paused')");
    assert_string_equal(rig.outcome, "unknown");
}

TEST(a_lost_monitor_leaves_post_copy_alone)
{
    begin(STEPS(POSTCOPY, {.gone = true}), STEPS(POSTCOPY));
    ends_with(STATUS_FAILED, "source migrates", "goes on without vmferryctl");
    assert_string_equal(rig.outcome, "");
}

TEST(a_source_that_ends_in_post_copy)
{
    begin(STEPS(POSTCOPY, POSTCOPY, POSTCOPY, {.gone = true}), STEPS(POSTCOPY, PAUSED));
    rig.source.ended = true;
    ends_with(STATUS_FAILED, "source migrates, destination cont", "the VM is lost");
    assert_string_equal(rig.outcome, "lost");
}

/* ---- The hand-over ---- */

/* In post-copy QEMU can fall back until the destination has the devices' state. */
TEST(post_copy_that_fails_as_it_begins)
{
    begin(STEPS(ACTIVE, POSTCOPY, POSTCOPY, FAILED), STEPS(SETUP));
    rig.ctl.arguments.postcopy = POSTCOPY_NOW;
    rig.tunnel_result = "";
    ends_with(STATUS_FAILED,
              "source migrates, source migrate-start-postcopy, near cut, far cut, source restored, "
              "destination restored",
              "was not moved; it runs on at the source.");
    assert_string_equal(rig.outcome, "not-moved");
}

/* It was asked for as pre-copy came to its end, which is another hand-over, and fails. */
TEST(post_copy_that_is_asked_for_too_late)
{
    begin(STEPS(ACTIVE, {QEMU_PRECOPY, "device", "finish-migrate"}, {QEMU_PRECOPY, "device"},
                {QEMU_FAILED, "failed", "running"}),
          STEPS(ARRIVED));
    is_there("paused");
    rig.ctl.arguments.postcopy = POSTCOPY_NOW;
    rig.tunnel_result = "";
    ends_with(STATUS_FAILED,
              "source migrates, source migrate-start-postcopy, near cut, far cut, source restored, "
              "destination restored",
              "was not told to start it");
}

/* The destination's last word was lost: the source goes on, and the copy is not started. */
TEST(a_source_that_did_not_hear_of_the_arrival)
{
    begin(STEPS(ACTIVE, {QEMU_PRECOPY, "device", "finish-migrate"}, {QEMU_FAILED, "failed", "running"}),
          STEPS(ARRIVED));
    is_there("paused");
    rig.tunnel_result = "";
    ends_with(STATUS_FAILED, "source migrates, near cut, far cut, source restored, destination restored",
              "has all of it as well (paused), and was not told to start it");
    assert_string_equal(rig.outcome, "not-moved");
}

/* Another program told the destination 'cont'. */
TEST(a_vm_that_runs_twice_is_stopped_at_the_destination)
{
    begin(STEPS(ACTIVE, FAILED), STEPS(ARRIVED));
    is_there("running");
    rig.tunnel_result = "";
    ends_with(STATUS_BOTH_RUN,
              "source migrates, near cut, destination stop, far cut, source restored, destination restored",
              "ran on both hosts");
    assert_string_equal(rig.destination.run, "paused");
    assert_string_equal(rig.outcome, "unknown");
}

/* 'send' cannot ask the destination, but it knows that the VM had stopped. */
TEST(a_vm_that_may_run_twice)
{
    begin_send(STEPS(ACTIVE, {QEMU_PRECOPY, "device", "finish-migrate"}, {QEMU_FAILED, "failed", "running"}));
    rig.tunnel_result = "";
    ends_with(STATUS_BOTH_RUN, "source migrates, near cut, source restored",
              "may run at the destination as well");
    begin_send(STEPS(ACTIVE, FAILED));
    rig.tunnel_result = "";
    ends_with(STATUS_FAILED, "source migrates, near cut, source restored",
              "was not moved; it runs on at the source.");
}

TEST(a_destination_that_does_not_start_at_once)
{
    begin(STEPS(ACTIVE, POSTCOPY, POSTCOPY, POSTCOPY, POSTCOPY, POSTCOPY, POSTCOPY, COMPLETED),
          STEPS(ARRIVED));
    rig.ctl.arguments.postcopy = POSTCOPY_NOW;
    rig.destination.refusals = 2;
    ends_with(STATUS_DONE,
              "source migrates, source migrate-start-postcopy, destination cont, destination cont, "
              "destination cont, source restored, destination restored",
              NULL);
    assert_true(rig.now >= 1000 * SECOND + SECOND / 2); /* not as often as it can be asked */
}

TEST(a_destination_that_does_not_start_the_vm)
{
    begin(STEPS(ACTIVE, COMPLETED), STEPS(ARRIVED));
    rig.destination.refusals = 99;
    ends_with(STATUS_FAILED, "source migrates, destination cont, source restored, destination restored",
              "stands still: it ran at the source, and QEMU at host2 says that it is 'paused': "
              "QEMU (destination) says: not now. Look");
    assert_string_equal(rig.outcome, "moved");
}

/* A VM that was paused stays so, and nothing waits for it. */
TEST(a_paused_vm_is_not_started)
{
    begin(STEPS({QEMU_PRECOPY, "active", "paused"}, {QEMU_PRECOPY, "active"}, COMPLETED), STEPS(ARRIVED));
    is_there("paused");
    ends_with(STATUS_DONE, "source migrates, source restored, destination restored", NULL);
}

/* QEMU carries the state over; it is told to go on all the same, and is suspended again then. */
TEST(a_suspended_vm_goes_on_as_such)
{
    begin(STEPS({QEMU_PRECOPY, "active", "suspended"}, COMPLETED), STEPS(ARRIVED));
    rig.destination.goes_on = "suspended";
    ends_with(STATUS_DONE, "source migrates, destination cont, source restored, destination restored", NULL);
}

TEST(a_vm_that_runs_and_must_not)
{
    begin(STEPS({QEMU_PRECOPY, "active", "paused"}, {QEMU_PRECOPY, "active"}, COMPLETED), STEPS(ARRIVED));
    is_there("running");
    ends_with(STATUS_FAILED, "source migrates, source restored, destination restored",
              "Tell QEMU there 'stop'");
}

/* Nothing is taken back there then: the source has let it go. */
TEST(a_vm_that_is_nowhere)
{
    begin(STEPS(ACTIVE, COMPLETED), STEPS(FAILED));
    is_there("shutdown");
    ends_with(STATUS_FAILED, "source migrates, source restored", "and that the migration has failed");
    assert_string_equal(rig.outcome, "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(pre_copy_is_left_alone),
        CASE(that_it_moved_is_told_once),
        CASE(a_socket_of_another_user_is_not_used),
        CASE(a_failure_takes_everything_back),
        CASE(a_tunnel_that_was_found_stays),
        CASE(ctrl_c_cancels_pre_copy),
        CASE(ctrl_c_may_come_too_late),
        CASE(ctrl_c_leaves_post_copy_alone),
        CASE(ctrl_c_right_after_asking_for_post_copy),
        CASE(ctrl_c_twice_after_asking_for_post_copy),
        CASE(post_copy_waits_for_memory_to_flow),
        CASE(post_copy_after_some_time),
        CASE(post_copy_with_the_fourth_pass),
        CASE(post_copy_is_left_out_for_a_vm_that_stands_still),
        CASE(a_paused_post_copy_is_not_cancelled),
        CASE(a_paused_post_copy_is_recovered),
        CASE(a_paused_post_copy_gets_another_tunnel),
        CASE(a_migration_that_is_done_is_taken_over),
        CASE(a_post_copy_that_is_taken_over_gets_another_tunnel),
        CASE(a_post_copy_is_paused_in_the_hand_over),
        CASE(the_destination_is_reached_anew),
        CASE(a_lost_monitor_ends_pre_copy),
        CASE(a_lost_monitor_does_not_start_the_vm),
        CASE(a_lost_monitor_leaves_post_copy_alone),
        CASE(a_source_that_ends_in_post_copy),
        CASE(post_copy_that_fails_as_it_begins),
        CASE(post_copy_that_is_asked_for_too_late),
        CASE(a_source_that_did_not_hear_of_the_arrival),
        CASE(a_vm_that_runs_twice_is_stopped_at_the_destination),
        CASE(a_vm_that_may_run_twice),
        CASE(a_destination_that_does_not_start_at_once),
        CASE(a_destination_that_does_not_start_the_vm),
        CASE(a_paused_vm_is_not_started),
        CASE(a_suspended_vm_goes_on_as_such),
        CASE(a_vm_that_runs_and_must_not),
        CASE(a_vm_that_is_nowhere),
    };

    return cmocka_run_group_tests_name("ctl-drive", tests, NULL, NULL);
}
