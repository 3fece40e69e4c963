/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "test-util.h"

#include "broker/config/settings.h"
#include "broker/helpers/stats-page.h"
#include "broker/log.h"
#include "broker/migration/admit.h"
#include "broker/migration/quota.h"
#include "broker/migration/registry.h"
#include "common/cleanup.h"

/* Entries without migrations: who may make one more, and have one more channel. */

enum { SOME_UID = 1000, OTHER_UID = 1001, ENTRIES = 600 };

struct rig {
    struct registry registry;
    struct config config;
    struct entry entries[ENTRIES];
    size_t n;
};

static struct rig *the_rig;

/* A migration is its entry here. */
static void on_forget(struct migration *migration)
{
    struct entry *entry = (struct entry *)(void *)migration;

    registry_remove(&the_rig->registry, entry);
    identity_clear(&entry->identity);
}

static struct rig *rig_new(void)
{
    the_rig = calloc(1, sizeof(*the_rig));
    assert_non_null(the_rig);
    log_open(LOG_EMERG);
    registry_init(&the_rig->registry, on_forget);
    config_init(&the_rig->config);
    return the_rig;
}

static void rig_freep(struct rig **rig)
{
    while (registry_count(&(*rig)->registry) > 0)
        on_forget(registry_next(&(*rig)->registry, NULL)->migration);
    config_clear(&(*rig)->config);
    free(*rig);
}

#define _cleanup_rig_ _cleanup_(rig_freep)

static struct entry *rig_add(struct rig *rig, const char *vm, uid_t uid)
{
    struct entry *entry = &rig->entries[rig->n++];

    assert_true(identity_init(&entry->identity, ROLE_INCOMING, rig->n, 0, vm, uid) >= 0);
    entry->migration = (struct migration *)(void *)entry;
    registry_add(&rig->registry, entry);
    return entry;
}

/* The name of the error, without its prefix; "" where it may. */
static const char *rig_admit(struct rig *rig, const char *vm, uid_t uid)
{
    static char name[64];
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;

    name[0] = '\0';
    if (admit_new(&rig->registry, &rig->config, ROLE_INCOMING, vm, uid, &error) < 0)
        snprintf(name, sizeof(name), "%s", error.name + strlen(ERROR_PREFIX));
    return name;
}

TEST(a_state_is_counted_once_and_a_finished_one_stays_so)
{
    _cleanup_rig_ struct rig *rig = rig_new();
    struct entry *entry = rig_add(rig, "vm", SOME_UID);

    assert_true(registry_set_state(&rig->registry, entry, STATE_ACTIVE));
    assert_int_equal(registry_count_running(&rig->registry), 1);
    assert_false(registry_set_state(&rig->registry, entry, STATE_WAITING));
    assert_true(registry_set_state(&rig->registry, entry, STATE_FINISHED));
    assert_true(registry_set_state(&rig->registry, entry, STATE_FINISHED));
    assert_false(registry_set_state(&rig->registry, entry, STATE_ACTIVE));
    assert_int_equal(entry->identity.state, STATE_FINISHED);
    assert_int_equal(registry_count_running(&rig->registry), 0);
    assert_int_equal(registry_count(&rig->registry), 1);
}

TEST(they_are_found_by_role_and_id)
{
    _cleanup_rig_ struct rig *rig = rig_new();
    struct entry *entry = rig_add(rig, "vm", SOME_UID);

    rig_add(rig, "other", SOME_UID);
    assert_ptr_equal(registry_find(&rig->registry, ROLE_INCOMING, entry->identity.id, 0), entry);
    assert_null(registry_find(&rig->registry, ROLE_OUTGOING, entry->identity.id, 0));
    assert_null(registry_find(&rig->registry, ROLE_INCOMING, entry->identity.id + REGISTRY_BUCKETS, 0));
}

TEST(a_vm_of_a_user_has_one_migration_in_each_direction)
{
    _cleanup_rig_ struct rig *rig = rig_new();
    struct entry *entry = rig_add(rig, "vm", SOME_UID);

    assert_string_equal(rig_admit(rig, "vm", SOME_UID), "VmBusy");
    assert_string_equal(rig_admit(rig, "other", SOME_UID), "");
    assert_string_equal(rig_admit(rig, "vm", 0), ""); /* another user's VM of this name */
    assert_true(registry_set_state(&rig->registry, entry, STATE_FINISHED));
    assert_string_equal(rig_admit(rig, "vm", SOME_UID), "");
}

TEST(a_user_has_a_limit_and_root_has_that_of_all)
{
    _cleanup_rig_ struct rig *rig = rig_new();

    rig->config.max_per_user = 1;
    rig->config.max_migrations = 3;
    rig_add(rig, "a", SOME_UID);
    assert_string_equal(rig_admit(rig, "b", SOME_UID), "LimitExceeded");
    assert_string_equal(rig_admit(rig, "b", OTHER_UID), "");
    rig_add(rig, "c", 0);
    assert_string_equal(rig_admit(rig, "d", 0), "");
    rig_add(rig, "d", 0);
    assert_string_equal(rig_admit(rig, "e", 0), "LimitExceeded");
}

static bool is_one_left(void *userdata)
{
    return registry_count(userdata) == 1;
}

TEST(of_users_that_have_as_many_the_oldest_one_is_forgotten)
{
    _cleanup_rig_ struct rig *rig = rig_new();

    registry_set_state(&rig->registry, rig_add(rig, "a", SOME_UID), STATE_FINISHED);
    registry_set_state(&rig->registry, rig_add(rig, "b", OTHER_UID), STATE_FINISHED);
    registry_forget_until(&rig->registry, is_one_left, &rig->registry);
    assert_ptr_equal(registry_next(&rig->registry, NULL), &rig->entries[1]);
}

TEST(of_the_finished_ones_the_oldest_are_forgotten)
{
    _cleanup_rig_ struct rig *rig = rig_new();
    struct entry *running = rig_add(rig, "running", SOME_UID);

    for (int i = 0; i < FINISHED_MAX + 2; i++)
        registry_set_state(&rig->registry, rig_add(rig, "vm", SOME_UID), STATE_FINISHED);
    assert_string_equal(rig_admit(rig, "b", SOME_UID), "");
    assert_int_equal(registry_count(&rig->registry), FINISHED_MAX); /* one is to come */
    assert_ptr_equal(registry_next(&rig->registry, NULL), running);
    assert_ptr_equal(registry_next(&rig->registry, running), &rig->entries[4]);
}

TEST(a_client_id_is_of_one_user_and_one_direction)
{
    _cleanup_rig_ struct rig *rig = rig_new();
    struct entry *entry = rig_add(rig, "vm", SOME_UID);

    rig_add(rig, "other", SOME_UID);
    entry->client_id = "mine";
    assert_ptr_equal(admit_find_client_id(&rig->registry, ROLE_INCOMING, "mine", SOME_UID), entry->migration);
    assert_null(admit_find_client_id(&rig->registry, ROLE_OUTGOING, "mine", SOME_UID));
    assert_null(admit_find_client_id(&rig->registry, ROLE_INCOMING, "mine", OTHER_UID));
    assert_null(admit_find_client_id(&rig->registry, ROLE_INCOMING, NULL, SOME_UID));
}

/* ---- Channels ---- */

static bool may_have(struct rig *rig, const struct entry *entry, uint32_t more)
{
    char why[QUOTA_WHY_MAX];

    return quota_admit(&rig->registry, &rig->config, entry, more, why) >= 0;
}

TEST(what_waits_and_what_is_open_counts)
{
    _cleanup_rig_ struct rig *rig = rig_new();
    struct stats stats = {.n_channels = 3,
                          .channels = {{.state = STATS_CHANNEL_OPEN},
                                       {.state = STATS_CHANNEL_CLOSED},
                                       {.state = STATS_CHANNEL_OPENING}}};
    struct stats_page page = {.stats = &stats, .fd = -1};
    struct entry *entry = rig_add(rig, "vm", SOME_UID);

    rig->config.max_channels_per_user = 5;
    entry->page = &page;
    entry->n_waiting = 2;
    assert_true(may_have(rig, entry, 1));
    assert_false(may_have(rig, entry, 2));
    assert_true(registry_set_state(&rig->registry, entry, STATE_FINISHED));
    assert_true(may_have(rig, rig_add(rig, "other", SOME_UID), 5)); /* a finished one has none */
}

TEST(a_helper_that_lies_counts_no_more_than_it_may_have)
{
    _cleanup_rig_ struct rig *rig = rig_new();
    struct stats stats = {.n_channels = UINT32_MAX};
    struct stats_page page = {.stats = &stats, .fd = -1};
    struct entry *entry = rig_add(rig, "vm", SOME_UID);

    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++)
        stats.channels[i].state = STATS_CHANNEL_OPEN;
    rig->config.max_channels = 4;
    rig->config.max_channels_per_user = 5;
    entry->page = &page;
    assert_true(may_have(rig, entry, 1));
    assert_false(may_have(rig, entry, 2));
}

TEST(what_one_user_has_too_much_is_not_at_the_cost_of_others)
{
    _cleanup_rig_ struct rig *rig = rig_new();
    struct entry *greedy = rig_add(rig, "a", SOME_UID), *other = rig_add(rig, "b", OTHER_UID);

    rig->config.max_channels_per_user = 3;
    rig->config.max_channels_in_all = 5;
    greedy->n_waiting = 10;
    assert_false(may_have(rig, greedy, 0));
    assert_true(may_have(rig, other, 2));
    assert_false(may_have(rig, other, 3));
    assert_false(may_have(rig, rig_add(rig, "c", 0), 3)); /* the limit of all is root's, too */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_state_is_counted_once_and_a_finished_one_stays_so),
        CASE(they_are_found_by_role_and_id),
        CASE(a_vm_of_a_user_has_one_migration_in_each_direction),
        CASE(a_user_has_a_limit_and_root_has_that_of_all),
        CASE(of_users_that_have_as_many_the_oldest_one_is_forgotten),
        CASE(of_the_finished_ones_the_oldest_are_forgotten),
        CASE(a_client_id_is_of_one_user_and_one_direction),
        CASE(what_waits_and_what_is_open_counts),
        CASE(a_helper_that_lies_counts_no_more_than_it_may_have),
        CASE(what_one_user_has_too_much_is_not_at_the_cost_of_others),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
