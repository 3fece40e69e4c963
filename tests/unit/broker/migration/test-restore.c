/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "migration-rig.h"

#include "broker/migration/record.h"
#include "broker/migration/supply.h"

/* A broker that ends, and the next one, which takes its migrations over. */

static struct migration *only_one(struct rig *rig)
{
    assert_int_equal(registry_count(&rig->registry), 1);
    return registry_next(&rig->registry, NULL)->migration;
}

/* The helper answers the SYNC of the new broker. */
static void helper_syncs(struct rig *rig, int helper)
{
    union message m = {.synced.cookie = helper_hears(helper, MESSAGE_SYNC, NULL).sync.cookie};

    helper_says(helper, MESSAGE_SYNCED, m);
    rig_turn(rig);
}

TEST(a_running_one_goes_on)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    struct options options = rig_options(rig);
    struct migration *migration;
    int helper;

    options.client_id = strdup("mine");
    options.bandwidth_limit = 4711;
    migration = rig_prepare_with(rig, options, &helper);
    rig_state(rig, helper, STATE_CONNECTED, "");
    uint64_t started = migration_identity(migration)->started;

    rig_restart(rig);
    migration = only_one(rig);
    assert_int_equal(rig_state_of(migration), STATE_CONNECTED);
    assert_int_equal(migration_identity(migration)->started, started);
    assert_string_equal(migration_identity(migration)->vm, "vm");
    assert_string_equal(migration_options(migration)->client_id, "mine");
    assert_int_equal(migration_options(migration)->bandwidth_limit, 4711);
    assert_string_equal(migration_status(migration)->peer, "tcp:192.0.2.1:1");
    helper_syncs(rig, helper);
    rig_state(rig, helper, STATE_ACTIVE, "");
    assert_int_equal(rig_state_of(migration), STATE_ACTIVE);
    rig_result(rig, helper, VF_ERROR_NONE, "");
    assert_int_equal(migration_status(migration)->result, VF_RESULT_DONE);
    assert_false(stand_in_has(&rig->stand_ins, "-link"));
    assert_true(stand_in_has(&rig->stand_ins, "-state."));
}

TEST(what_was_asked_before_the_sync_is_void)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    union message need = {.need_peer = {.serial = 1, .kind = PEER_CONTROL}};
    int helper, pair[2];

    rig_start(rig, &helper);
    rig_restart(rig);
    helper_says(helper, MESSAGE_NEED_PEER, need);
    helper_syncs(rig, helper);
    test_pair(SOCK_STREAM, 0, pair);
    assert_true(supply_add_peer(only_one(rig), pair[0], &error) >= 0);
    helper_hears_nothing(helper);
    helper_says(helper, MESSAGE_NEED_PEER, need); /* again: now it counts */
    rig_turn(rig);
    assert_int_equal(helper_hears(helper, MESSAGE_PEER, NULL).peer.serial, 1);
    close(pair[0]);
    close(pair[1]);
}

TEST(its_helper_may_be_further_than_the_record)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    int helper;

    rig_prepare(rig, &helper);
    rig_restart(rig);
    rig_state(rig, helper, STATE_INTERRUPTED, "gone"); /* said to nobody: the broker was away */
    assert_int_equal(rig_state_of(only_one(rig)), STATE_INTERRUPTED);
    helper_syncs(rig, helper);
    rig_state(rig, helper, STATE_ACTIVE, "");
    rig_state(rig, helper, STATE_CONNECTED, ""); /* this one it cannot say any more */
    assert_int_equal(migration_identity(only_one(rig))->error, VF_ERROR_HELPER_FAILED);
}

TEST(a_result_that_was_said_meanwhile_is_read)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    union message m = {.result = {.result = VF_RESULT_DONE}};
    int helper;

    rig_prepare(rig, &helper);
    rig_state(rig, helper, STATE_CONNECTED, "");
    helper_says(helper, MESSAGE_RESULT, m); /* and the broker ends before it reads that */
    shutdown(helper, SHUT_WR);
    rig_restart(rig);
    rig_turn(rig);
    assert_int_equal(migration_status(only_one(rig))->result, VF_RESULT_DONE);
}

TEST(an_ending_outlives_the_broker)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    int helper;

    migration_stop(rig_prepare(rig, &helper), VF_ERROR_CANCELLED, "Cancelled.");
    helper_hears(helper, MESSAGE_END, NULL);
    rig_restart(rig);
    shutdown(helper, SHUT_RDWR);
    rig_turn(rig);
    assert_int_equal(migration_identity(only_one(rig))->error, VF_ERROR_CANCELLED);
}

TEST(a_finished_one_keeps_its_end)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    struct migration *migration;
    int helper;

    rig_prepare(rig, &helper);
    rig_result(rig, helper, VF_ERROR_PEER_REJECTED, "it was refused.");
    rig_restart(rig);
    migration = only_one(rig);
    assert_int_equal(rig_state_of(migration), STATE_FINISHED);
    assert_int_equal(registry_count_running(&rig->registry), 0);
    assert_non_null(strstr(migration_status(migration)->message, "it was refused."));
    migration_forget(migration);
    rig_turn(rig);
    assert_int_equal(rig->stand_ins.n_stored, 0);
}

/* They are other processes' open files, and PID 1 must hold none. */
TEST(what_was_supplied_is_not_stored)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    int helper, theirs, pair[2];
    size_t n;
    char byte;

    rig_prepare(rig, &helper);
    rig_turn(rig);
    n = rig->stand_ins.n_stored;
    assert_true(supply_open_stream(only_one(rig), 0, &theirs, &error) >= 0);
    test_pair(SOCK_STREAM, 0, pair);
    assert_true(supply_add_stream(only_one(rig), 0, pair[0], &error) >= 0);
    close(pair[0]);
    rig_turn(rig);
    assert_int_equal(rig->stand_ins.n_stored, n);
    theirs = stand_in_fd(theirs);
    pair[1] = stand_in_fd(pair[1]);
    rig_restart(rig);
    assert_int_equal(recv(theirs, &byte, 1, MSG_DONTWAIT), 0);
    assert_int_equal(recv(pair[1], &byte, 1, MSG_DONTWAIT), 0);
    close(theirs);
    close(pair[1]);
}

/* Brings one; returns what the helper is told of it. */
static struct message_keep keeps_one(struct rig *rig, int helper, int pair[static 2])
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    struct message_keep keep;

    test_pair(SOCK_STREAM, 0, pair);
    if (migration_identity(only_one(rig))->role == ROLE_INCOMING)
        assert_true(supply_add_stream(only_one(rig), 0, pair[0], &error) >= 0);
    else
        assert_true(supply_add_peer(only_one(rig), pair[0], &error) >= 0);
    helper_says(helper, MESSAGE_FEATURES, (union message){.features.features = OFFER_KEEPS});
    rig_turn(rig);
    close(pair[0]);
    keep = helper_hears(helper, MESSAGE_KEEP, &pair[0]).keep;
    assert_int_equal(write(pair[0], "x", 1), 1);
    assert_int_equal(recv(pair[1], &(char){0}, 1, MSG_DONTWAIT), 1);
    return keep;
}

TEST(what_was_supplied_waits_in_its_helper)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    struct message_keep first, second;
    int helper, a[2], b[2];

    rig_prepare(rig, &helper);
    first = keeps_one(rig, helper, a);
    assert_int_equal(first.what, KEPT_FOR_QEMU);
    assert_int_equal(first.shared, 1);
    rig_restart(rig);
    assert_int_equal(TAILQ_FIRST(&rig->registry.entries)->n_waiting, 0);
    helper_syncs(rig, helper);
    helper_says(helper, MESSAGE_FEATURES, (union message){.features.features = OFFER_KEEPS});
    helper_says(helper, MESSAGE_KEPT, (union message){.kept = first});
    rig_turn(rig);
    assert_int_equal(TAILQ_FIRST(&rig->registry.entries)->n_waiting, 1);
    second = keeps_one(rig, helper, b);
    assert_true(second.number > first.number);
    for (uint32_t i = 0; i < 2; i++) {
        struct message_use use;

        helper_says(helper, MESSAGE_NEED_QEMU, (union message){.need_qemu.channel = i});
        rig_turn(rig);
        use = helper_hears(helper, MESSAGE_USE, NULL).use;
        assert_int_equal(use.number, i == 0 ? first.number : second.number);
        assert_int_equal(use.request, i);
    }
    assert_int_equal(TAILQ_FIRST(&rig->registry.entries)->n_waiting, 0);
    for (int i = 0; i < 2; i++) {
        close(a[i]);
        close(b[i]);
    }
}

TEST(a_connection_to_the_peer_waits_in_its_helper)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    struct message_keep keep;
    struct message_use use;
    int helper, pair[2];

    rig_start(rig, &helper);
    keep = keeps_one(rig, helper, pair);
    assert_int_equal(keep.what, KEPT_FOR_PEER);
    rig_restart(rig);
    helper_syncs(rig, helper);
    helper_says(helper, MESSAGE_KEPT, (union message){.kept = keep});
    helper_says(helper, MESSAGE_NEED_PEER, (union message){.need_peer = {.serial = 7, .kind = PEER_CONTROL}});
    rig_turn(rig);
    use = helper_hears(helper, MESSAGE_USE, NULL).use;
    assert_int_equal(use.number, keep.number);
    assert_int_equal(use.request, 7);
    assert_int_equal(use.kind, PEER_CONTROL);
    close(pair[0]);
    close(pair[1]);
}

TEST(a_helper_keeps_no_more_than_it_can_have_been_given)
{
    static const struct message_keep lies[] = {
        {.number = 1, .what = KEPT_FOR_PEER},
        {.number = 1, .what = KEPT_FOR_QEMU, .stream = 1},
        {.number = 1, .what = 2},
        {.number = 0, .what = KEPT_FOR_QEMU},
    };

    for (size_t i = 0; i < ELEMENTS(lies) + 2; i++) {
        _cleanup_rig_ struct rig *rig = rig_new(true);
        const bool asked = i<ELEMENTS(lies), many = i> ELEMENTS(lies);
        const struct message_keep good = {.number = 1, .what = KEPT_FOR_QEMU};
        int helper;

        rig_prepare(rig, &helper);
        if (asked || many) {
            rig_restart(rig);
            helper_syncs(rig, helper);
        }
        for (int n = 0; n < (many ? 64 : 0); n++) {
            helper_says(helper, MESSAGE_KEPT, (union message){.kept = good});
            rig_turn(rig);
        }
        assert_int_equal(migration_identity(only_one(rig))->error, VF_ERROR_NONE);
        helper_says(helper, MESSAGE_KEPT, (union message){.kept = asked ? lies[i] : good});
        rig_turn(rig);
        assert_int_equal(migration_identity(only_one(rig))->error, VF_ERROR_HELPER_FAILED);
    }
}

TEST(a_layout_goes_on)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    struct options options = rig_options(rig);
    char path[QEMU_SOCKET_PATH_MAX];
    int helper;

    strcpy(options.layout, "web1");
    strcpy(path, migration_socket_path(rig_start_with(rig, options, &helper), 0));
    rig_restart(rig);
    helper_syncs(rig, helper);
    assert_string_equal(migration_socket_path(only_one(rig), 0), path);
    assert_string_equal(migration_options(only_one(rig))->layout, "web1");
    assert_int_equal(access(path, F_OK), 0);
    rig_result(rig, helper, VF_ERROR_CANCELLED, "");
    *strrchr(path, '/') = '\0';
    assert_int_equal(access(path, F_OK), -1); /* the socket is ours to remove as before */
}

TEST(it_says_that_what_was_supplied_is_gone)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    union message need = {.need_qemu = {.channel = 0}};
    struct options options = rig_options(rig);
    int helper;

    options.sockets[0] = strdup("");
    rig_prepare_with(rig, options, &helper);
    rig_restart(rig);
    helper_syncs(rig, helper);
    rig->config.qemu_timeout = 0;
    helper_says(helper, MESSAGE_NEED_QEMU, need);
    rig_turn(rig);
    assert_non_null(
        strstr(helper_hears(helper, MESSAGE_QEMU_FAILED, NULL).qemu_failed.text, "bring it anew"));
}

/* As older brokers did. */
TEST(what_an_older_broker_stored_is_kept_in_its_order)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    struct stand_ins *stand_ins = &rig->stand_ins;
    int helper, theirs[2], fd;

    rig_prepare(rig, &helper);
    rig_turn(rig);
    for (int i = 0; i < 2; i++) {
        int pair[2];

        test_pair(SOCK_STREAM, 0, pair);
        snprintf(stand_ins->stored[stand_ins->n_stored].name, STORE_NAME_MAX, "in-%s-ours.0.%d",
                 migration_identity(only_one(rig))->id_text, i + 1);
        stand_ins->stored[stand_ins->n_stored++].fd = stand_in_fd(pair[0]);
        theirs[i] = stand_in_fd(pair[1]);
    }
    rig_restart(rig);
    rig_turn(rig);
    assert_false(stand_in_has(stand_ins, "-ours"));
    helper_syncs(rig, helper);
    for (int i = 0; i < 2; i++) {
        char byte = 0;

        helper_says(helper, MESSAGE_NEED_QEMU, (union message){.need_qemu.channel = (uint32_t)i});
        rig_turn(rig);
        while (message_peek_type(helper, &(uint32_t){0}) > 0) {
            union message m;

            assert_true(message_recv(helper, TO_HELPER, ~0U, &m, &fd) > 0);
            if (m.header.type == MESSAGE_QEMU)
                break;
            fd_closep(&fd);
        }
        assert_int_equal(write(fd, "x", 1), 1);
        assert_int_equal(recv(theirs[i], &byte, 1, MSG_DONTWAIT), 1);
        close(fd);
        close(theirs[i]);
    }
}

TEST(one_without_its_helper_ends)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    int helper;

    rig_prepare(rig, &helper);
    rig_turn(rig);
    for (size_t i = 0; i < rig->stand_ins.n_stored; i++)
        if (strstr(rig->stand_ins.stored[i].name, "-link"))
            rig->stand_ins.stored[i].name[strlen(rig->stand_ins.stored[i].name) - 1] = 'x';
    rig_restart(rig);
    assert_int_equal(migration_identity(only_one(rig))->error, VF_ERROR_HELPER_FAILED);
}

TEST(a_helper_without_its_record_is_ended)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    int helper;

    rig_prepare(rig, &helper);
    rig_turn(rig);
    for (size_t i = 0; i < rig->stand_ins.n_stored; i++)
        if (strstr(rig->stand_ins.stored[i].name, "-state."))
            dup2(rig->stand_ins.helpers[0], rig->stand_ins.stored[i].fd); /* no record */
    rig_restart(rig);
    assert_int_equal(registry_count(&rig->registry), 0);
    assert_int_equal(helper_hears(helper, MESSAGE_END, NULL).end.error, VF_ERROR_HELPER_FAILED);
    rig_turn(rig);
    assert_int_equal(rig->stand_ins.n_stored, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_running_one_goes_on),
        CASE(what_was_asked_before_the_sync_is_void),
        CASE(its_helper_may_be_further_than_the_record),
        CASE(a_result_that_was_said_meanwhile_is_read),
        CASE(an_ending_outlives_the_broker),
        CASE(a_finished_one_keeps_its_end),
        CASE(what_was_supplied_is_not_stored),
        CASE(what_was_supplied_waits_in_its_helper),
        CASE(a_connection_to_the_peer_waits_in_its_helper),
        CASE(a_helper_keeps_no_more_than_it_can_have_been_given),
        CASE(a_layout_goes_on),
        CASE(it_says_that_what_was_supplied_is_gone),
        CASE(what_an_older_broker_stored_is_kept_in_its_order),
        CASE(one_without_its_helper_ends),
        CASE(a_helper_without_its_record_is_ended),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
