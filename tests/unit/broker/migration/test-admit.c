/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "migration-rig.h"

#include "broker/bus/names.h"
#include "broker/migration/admit.h"

/* What one user's migrations are to those of others: names and ids are no user's. */

static const uint8_t true_secret[MESSAGE_SECRET_SIZE] = {1}, false_secret[MESSAGE_SECRET_SIZE] = {2};

/* StartOutgoing by that user with a ticket of this id and secret; the error's name, or "". */
static const char *start(struct rig *rig, uid_t uid, const char *vm, const uint8_t *secret,
                         struct migration **ret)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    struct ticket ticket = {.id = 0x4711, .expiry = UINT64_MAX};
    struct options options = rig_options(rig);
    char text[TICKET_TEXT_MAX];
    int r;

    memcpy(ticket.secret, secret, sizeof(ticket.secret));
    assert_true(ticket_encode(&ticket, text) >= 0);
    r = admit_new(&rig->registry, &rig->config, ROLE_OUTGOING, vm, uid, &error);
    if (r >= 0)
        r = migration_start(&rig->services, vm, text, &options, uid, ret, &error);
    rig_turn(rig);
    if (r < 0)
        *ret = NULL;
    return r >= 0                                                          ? ""
           : sd_bus_error_has_name(&error, "org.vmferry.Error.TicketUsed") ? "TicketUsed"
           : sd_bus_error_has_name(&error, "org.vmferry.Error.VmBusy")     ? "VmBusy"
                                                                           : "another";
}

static const char *path_of(const struct migration *migration)
{
    static char path[OBJECT_PATH_MAX];

    object_path(migration_identity(migration), path);
    return path;
}

TEST(a_name_is_busy_for_its_owner)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;

    rig_prepare(rig, NULL); /* of getuid() */
    assert_true(admit_new(&rig->registry, &rig->config, ROLE_INCOMING, "vm", getuid() + 1, &error) >= 0);
    assert_true(admit_new(&rig->registry, &rig->config, ROLE_OUTGOING, "vm", getuid(), &error) >= 0);
    assert_true(admit_new(&rig->registry, &rig->config, ROLE_INCOMING, "vm", getuid(), &error) < 0);
    assert_string_equal(error.name, "org.vmferry.Error.VmBusy");
}

TEST(an_id_that_was_seen_occupies_nothing)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    struct migration *theirs, *ours, *again;

    assert_string_equal(start(rig, getuid(), "theirs", false_secret, &theirs), "");
    assert_string_equal(start(rig, getuid(), "ours", true_secret, &ours), "");
    assert_string_equal(start(rig, getuid(), "again", true_secret, &again), "TicketUsed");
    assert_string_equal(start(rig, getuid(), "again", false_secret, &again), "TicketUsed");
    assert_string_equal(path_of(theirs), "/org/vmferry/Broker1/outgoing/0000000000004711");
    assert_string_equal(path_of(ours), "/org/vmferry/Broker1/outgoing/0000000000004711_1");
    assert_string_equal(migration_identity(ours)->id_text, "0000000000004711");
    assert_ptr_equal(object_find(&rig->registry, path_of(ours))->migration, ours);
    assert_ptr_equal(object_find(&rig->registry, path_of(theirs))->migration, theirs);
    assert_string_not_equal(migration_socket_path(ours, 0), migration_socket_path(theirs, 0));
    for (const char *const *bad = (const char *const[]){"_", "_0", "_01", "_2", "_1 ", "_1_1", NULL}; *bad;
         bad++) {
        char path[OBJECT_PATH_MAX + 8];

        snprintf(path, sizeof(path), "%s%s", path_of(theirs), *bad);
        assert_null(object_find(&rig->registry, path));
    }
    /* Both helpers dial with the id that is in their tickets. */
    for (size_t i = 0; i < 2; i++)
        assert_int_equal(helper_hears(rig->stand_ins.helpers[i], MESSAGE_START_RELAY, NULL).start_relay.id,
                         0x4711);

    /* The first is forgotten, and another takes its place. */
    migration_stop(theirs, VF_ERROR_CANCELLED, "Cancelled.");
    rig_result(rig, rig->stand_ins.helpers[0], VF_ERROR_CANCELLED, "Cancelled.");
    assert_string_equal(start(rig, getuid(), "again", false_secret, &again), "TicketUsed"); /* it is kept */
    migration_forget(theirs);
    assert_string_equal(start(rig, getuid(), "again", false_secret, &again), "");
    assert_int_equal(migration_identity(again)->number, 0);
}

TEST(those_of_one_id_outlive_the_broker)
{
    _cleanup_rig_ struct rig *rig = rig_new(true);
    struct migration *theirs, *ours, *again;

    assert_string_equal(start(rig, getuid(), "theirs", false_secret, &theirs), "");
    assert_string_equal(start(rig, getuid(), "ours", true_secret, &ours), "");
    rig_restart(rig);
    assert_int_equal(registry_count_running(&rig->registry), 2);
    for (uint32_t number = 0; number < 2; number++) {
        const struct entry *entry = registry_find(&rig->registry, ROLE_OUTGOING, 0x4711, number);

        assert_string_equal(entry->identity.vm, number == 0 ? "theirs" : "ours");
    }
    assert_string_equal(start(rig, getuid(), "again", true_secret, &again), "TicketUsed");
}

/* One of that user that has finished; its entry. */
static struct entry *finished_of(struct rig *rig, uid_t uid, uint64_t id)
{
    struct options options = rig_options(rig);
    struct migration *migration;
    struct entry *entry;

    assert_true(migration_new(&rig->services, ROLE_INCOMING, id, 0, "vm", &options, uid, &migration) >= 0);
    entry = registry_find(&rig->registry, ROLE_INCOMING, id, 0);
    registry_set_state(&rig->registry, entry, STATE_FINISHED);
    return entry;
}

TEST(results_of_one_user_do_not_go_for_those_of_another)
{
    _cleanup_rig_ struct rig *rig = rig_new(false);
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;

    finished_of(rig, 1000, 1);
    finished_of(rig, 1001, 2);
    finished_of(rig, 1001, 3);
    for (uint64_t id = 4; id < 4 + 2 * FINISHED_MAX; id++) {
        assert_true(admit_new(&rig->registry, &rig->config, ROLE_INCOMING, "vm", 65534, &error) >= 0);
        finished_of(rig, 65534, id);
    }
    assert_int_equal(registry_count(&rig->registry), FINISHED_MAX);
    for (uint64_t id = 1; id < 4; id++)
        assert_non_null(registry_find(&rig->registry, ROLE_INCOMING, id, 0));
    assert_null(registry_find(&rig->registry, ROLE_INCOMING, 4, 0)); /* the oldest of the user's own */
    assert_non_null(registry_find(&rig->registry, ROLE_INCOMING, 3 + 2 * FINISHED_MAX, 0));

    /* Another user takes its share from the one that has the most. */
    for (uint64_t id = 5000; id < 5000 + FINISHED_MAX; id++) {
        assert_true(admit_new(&rig->registry, &rig->config, ROLE_INCOMING, "vm", 1002, &error) >= 0);
        finished_of(rig, 1002, id);
    }
    size_t of_each[2] = {0};
    const struct entry *entry;

    TAILQ_FOREACH(entry, &rig->registry.entries, next)
    {
        of_each[0] += entry->identity.uid == 65534;
        of_each[1] += entry->identity.uid == 1002;
    }
    assert_between(of_each[0], FINISHED_MAX / 2 - 3, FINISHED_MAX / 2);
    assert_between(of_each[1], FINISHED_MAX / 2 - 3, FINISHED_MAX / 2);
    assert_non_null(registry_find(&rig->registry, ROLE_INCOMING, 1, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_name_is_busy_for_its_owner),
        CASE(an_id_that_was_seen_occupies_nothing),
        CASE(results_of_one_user_do_not_go_for_those_of_another),
        CASE(those_of_one_id_outlive_the_broker),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
