/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "migration-rig.h"

#include "broker/migration/supply.h"

/* What a helper asks for is answered once, whatever fails. */

static bool no_timers;

int __real_sd_event_add_time_relative(sd_event *event, sd_event_source **ret, clockid_t clock, uint64_t usec,
                                      uint64_t accuracy, sd_event_time_handler_t handler, void *userdata);
int __wrap_sd_event_add_time_relative(sd_event *event, sd_event_source **ret, clockid_t clock, uint64_t usec,
                                      uint64_t accuracy, sd_event_time_handler_t handler, void *userdata);

int __wrap_sd_event_add_time_relative(sd_event *event, sd_event_source **ret, clockid_t clock, uint64_t usec,
                                      uint64_t accuracy, sd_event_time_handler_t handler, void *userdata)
{
    if (no_timers)
        return -ENOMEM;
    return __real_sd_event_add_time_relative(event, ret, clock, usec, accuracy, handler, userdata);
}

TEST(a_dial_that_cannot_wait_is_answered_once)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    struct migration *migration;
    int helper, pair[2];

    migration = rig_start(rig, &helper);
    no_timers = true;
    helper_says(helper, MESSAGE_NEED_PEER, (union message){.need_peer = {.serial = 7, .kind = PEER_CONTROL}});
    rig_turn(rig);
    no_timers = false;
    assert_int_equal(helper_hears(helper, MESSAGE_PEER_FAILED, NULL).peer_failed.serial, 7);

    /* What is brought now is for the next one. */
    test_pair(SOCK_STREAM, 0, pair);
    assert_true(supply_add_peer(migration, pair[0], &error) >= 0);
    rig_turn(rig);
    helper_hears_nothing(helper);
    helper_says(helper, MESSAGE_NEED_PEER, (union message){.need_peer = {.serial = 8, .kind = PEER_CONTROL}});
    rig_turn(rig);
    assert_int_equal(helper_hears(helper, MESSAGE_PEER, NULL).peer.serial, 8);
    close(pair[0]);
    close(pair[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_dial_that_cannot_wait_is_answered_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
