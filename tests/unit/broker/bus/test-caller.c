/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "../migration/migration-rig.h"
#include "bus-pair.h"

#include "broker/bus/caller.h"
#include "broker/bus/names.h"

/* Who calls, and whether that user may: the bus and polkit are the test's, which answers for both. */

enum { OWNER = 54321, STRANGER = 54322 };

struct world {
    struct rig *rig; /* has a migration of OWNER's */
    struct bus_pair pair;
    struct calls calls;
    uint32_t uid;             /* that the bus says; 0 is root's */
    bool gone;                /* the bus knows of no caller any more */
    sd_bus_message *question; /* to polkit; owned */
    unsigned n_questions, n_cancelled;
    unsigned n_ran;
    uid_t ran_as;
    int failure; /* of what it does; a negative errno, or 0 */
    unsigned n_replies;
    char error[128], message[512]; /* of the last reply; "": none */
};

static int run(struct bus *bus, sd_bus_message *m, uid_t uid, sd_bus_error *error)
{
    struct world *world = (struct world *)(void *)bus;

    world->n_ran++;
    world->ran_as = uid;
    if (world->failure < 0)
        return world->failure;
    return sd_bus_reply_method_return(m, NULL);
}

/* The broker gets a call. */
static int on_call(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct world *world = userdata;

    if (sd_bus_message_is_method_call(m, "test.Broker", "Manage"))
        return caller_resolve(&world->calls, m, ACTION_MANAGE, run, error);
    if (sd_bus_message_is_method_call(m, "test.Broker", "Prepare"))
        return caller_resolve(&world->calls, m, ACTION_PREPARE, run, error);
    return 0;
}

/* The world gets a question of the broker's. */
static int on_question(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct world *world = userdata;

    if (sd_bus_message_is_method_call(m, "org.freedesktop.DBus", "GetConnectionUnixUser"))
        return world->gone ? sd_bus_reply_method_errorf(m, SD_BUS_ERROR_NAME_HAS_NO_OWNER, "gone")
                           : sd_bus_reply_method_return(m, "u", world->uid);
    if (sd_bus_message_is_method_call(m, "org.freedesktop.PolicyKit1.Authority", "CheckAuthorization")) {
        sd_bus_message_unref(world->question);
        world->question = sd_bus_message_ref(m);
        world->n_questions++;
        return 1;
    }
    world->n_cancelled += sd_bus_message_is_method_call(m, NULL, "CancelCheckAuthorization") > 0;
    return 0;
}

static int on_reply(sd_bus_message *m, void *userdata, sd_bus_error *unused)
{
    struct world *world = userdata;
    const sd_bus_error *error = sd_bus_message_get_error(m);

    world->n_replies++;
    snprintf(world->error, sizeof(world->error), "%s", error ? error->name : "");
    snprintf(world->message, sizeof(world->message), "%s", error ? error->message : "");
    return 0;
}

static struct world *world_new(enum config_bus bus)
{
    struct world *world = calloc(1, sizeof(*world));
    struct options options;
    struct migration *migration;
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;

    assert_non_null(world);
    world->rig = rig_new(false);
    world->rig->config.bus = bus;
    options = rig_options(world->rig);
    options.sockets[0] = strdup(""); /* nothing is made, so nothing has to be given to another user */
    assert_true(migration_prepare(&world->rig->services, "vm", &options, OWNER, &migration, &error) >= 0);
    bus_pair_open(&world->pair, world->rig->event);
    calls_init(&world->calls, world->pair.broker, &world->rig->config, &world->rig->registry,
               (struct bus *)(void *)world);
    assert_true(sd_bus_add_filter(world->pair.broker, NULL, on_call, world) >= 0);
    assert_true(sd_bus_add_filter(world->pair.world, NULL, on_question, world) >= 0);
    world->uid = STRANGER;
    return world;
}

static void world_freep(struct world **world)
{
    caller_drop_all(&(*world)->calls);
    sd_bus_message_unref((*world)->question);
    bus_pair_close(&(*world)->pair);
    rig_freep(&(*world)->rig);
    free(*world);
}

#define _cleanup_world_ _cleanup_(world_freep)

static struct migration *the_migration(struct world *world)
{
    return registry_next(&world->rig->registry, NULL)->migration;
}

static void send_call(struct world *world, sd_bus_message *m, const char *sender, bool interactive)
{
    assert_true(sd_bus_message_set_sender(m, sender) >= 0);
    assert_true(sd_bus_message_set_allow_interactive_authorization(m, interactive) >= 0);
    assert_true(sd_bus_call_async(world->pair.world, NULL, m, on_reply, world, 0) >= 0);
    rig_turn(world->rig);
}

/* A client calls for that migration. */
static void manages_as(struct world *world, const char *sender, bool interactive)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
    char path[OBJECT_PATH_MAX];

    object_path(migration_identity(the_migration(world)), path);
    assert_true(sd_bus_message_new_method_call(world->pair.world, &m, NULL, path, "test.Broker", "Manage") >=
                0);
    send_call(world, m, sender, interactive);
}

static void manages(struct world *world)
{
    manages_as(world, ":1.7", false);
}

static void polkit_says(struct world *world, bool yes, bool challenge)
{
    assert_non_null(world->question);
    assert_true(sd_bus_reply_method_return(world->question, "(bba{ss})", yes, challenge, 0) >= 0);
    rig_turn(world->rig);
}

/* ---- Who may without a question ---- */

TEST(root_and_the_owner_may)
{
    _cleanup_world_ struct world *world = world_new(BUS_SYSTEM);

    world->uid = 0;
    manages(world);
    assert_int_equal(world->n_ran, 1);
    world->uid = OWNER;
    manages(world);
    assert_int_equal(world->n_ran, 2);
    assert_int_equal(world->ran_as, OWNER);
    assert_int_equal(world->n_questions, 0);
    assert_string_equal(world->error, "");
}

TEST(on_a_bus_of_a_user_no_other_one_may)
{
    _cleanup_world_ struct world *world = world_new(BUS_USER);

    manages(world);
    assert_string_equal(world->error, SD_BUS_ERROR_ACCESS_DENIED);
    assert_non_null(strstr(world->message, "uid 54322 may not manage migration"));
    assert_int_equal(world->n_questions + world->n_ran, 0);
}

TEST(a_caller_that_has_gone_is_dropped)
{
    _cleanup_world_ struct world *world = world_new(BUS_SYSTEM);

    world->gone = true;
    manages(world);
    assert_int_equal(world->n_ran + world->n_replies, 0);
    assert_int_equal(world->calls.n, 0);
}

/* ---- polkit ---- */

TEST(polkit_is_asked_and_its_yes_counts)
{
    _cleanup_world_ struct world *world = world_new(BUS_SYSTEM);
    const char *kind, *name, *action;

    manages(world);
    assert_int_equal(world->n_questions, 1);
    assert_int_equal(world->n_ran, 0);
    assert_true(sd_bus_message_enter_container(world->question, 'r', "sa{sv}") >= 0);
    assert_true(sd_bus_message_read(world->question, "s", &kind) >= 0);
    assert_string_equal(kind, "system-bus-name");
    assert_true(sd_bus_message_read(world->question, "a{sv}", 1, NULL, "s", &name) >= 0);
    assert_string_equal(name, ":1.7"); /* never a pid */
    assert_true(sd_bus_message_exit_container(world->question) >= 0);
    assert_true(sd_bus_message_read(world->question, "s", &action) >= 0);
    assert_string_equal(action, "org.vmferry.Broker1.manage");
    polkit_says(world, true, false);
    assert_int_equal(world->n_ran, 1);
    assert_int_equal(world->ran_as, STRANGER);
    assert_int_equal(world->calls.n + world->calls.n_asked, 0);
}

TEST(its_no_counts_and_so_does_a_challenge)
{
    _cleanup_world_ struct world *world = world_new(BUS_SYSTEM);

    manages(world);
    polkit_says(world, false, false);
    assert_string_equal(world->error, SD_BUS_ERROR_ACCESS_DENIED);
    manages(world);
    polkit_says(world, false, true);
    assert_string_equal(world->error, SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED);
    assert_int_equal(world->n_ran, 0);
}

TEST(an_error_is_a_no)
{
    _cleanup_world_ struct world *world = world_new(BUS_SYSTEM);

    manages(world);
    sd_bus_reply_method_errorf(world->question, SD_BUS_ERROR_SERVICE_UNKNOWN, "none here");
    rig_turn(world->rig);
    assert_non_null(strstr(world->message, "there is no polkit on this host"));
    manages(world);
    assert_true(sd_bus_reply_method_return(world->question, "s", "what") >= 0);
    rig_turn(world->rig);
    assert_non_null(strstr(world->message, "polkit's answer makes no sense"));
    assert_int_equal(world->n_ran, 0);
}

TEST(a_yes_counts_for_the_migration_that_was_asked_about)
{
    _cleanup_world_ struct world *world = world_new(BUS_SYSTEM);

    manages(world);
    migration_forget(the_migration(world));
    polkit_says(world, true, false);
    assert_string_equal(world->error, "org.vmferry.Error.NoSuchMigration");
    assert_int_equal(world->n_ran, 0);
}

TEST(a_yes_counts_for_no_other_one_at_the_same_path)
{
    _cleanup_world_ struct world *world = world_new(BUS_SYSTEM);
    struct options options = rig_options(world->rig);
    uint64_t id = migration_identity(the_migration(world))->id;
    struct migration *other;

    manages(world);
    migration_forget(the_migration(world));
    assert_true(migration_new(&world->rig->services, ROLE_INCOMING, id, 0, "vm", &options, STRANGER + 1,
                              &other) >= 0);
    polkit_says(world, true, false);
    assert_non_null(strstr(world->message, "is another one than that which the call was for"));
    assert_int_equal(world->n_ran, 0);
}

TEST(a_caller_that_goes_takes_its_question_back)
{
    _cleanup_world_ struct world *world = world_new(BUS_SYSTEM);

    manages_as(world, ":1.7", true);
    manages_as(world, ":1.8", false);
    caller_gone(&world->calls, ":1.7");
    rig_turn(world->rig);
    assert_int_equal(world->n_cancelled, 1);
    caller_gone(&world->calls, ":1.8"); /* no user sees that question */
    rig_turn(world->rig);
    assert_int_equal(world->n_cancelled, 1);
    assert_int_equal(world->calls.n + world->n_replies, 0);
}

TEST(a_new_migration_is_described_to_polkit)
{
    _cleanup_world_ struct world *world = world_new(BUS_SYSTEM);
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;

    assert_true(sd_bus_message_new_method_call(world->pair.world, &m, NULL, "/", "test.Broker", "Prepare") >=
                0);
    assert_true(sd_bus_message_append(m, "sa{sv}", "vm7", 0) >= 0);
    send_call(world, m, ":1.7", false);
    polkit_says(world, false, false);
    assert_non_null(strstr(world->message, "uid 54322 may not make an incoming migration of VM 'vm7' here"));
}

/* ---- A call that fails ---- */

TEST(what_the_host_refuses_has_a_name_of_d_bus)
{
    _cleanup_world_ struct world *world = world_new(BUS_SYSTEM);

    world->uid = 0;
    world->failure = -ENOSPC;
    manages(world);
    assert_string_equal(world->error, SD_BUS_ERROR_FAILED);
    assert_non_null(
        strstr(world->message, "The host refused vmferryd something that it needs: No space left"));
    world->failure = -EMFILE;
    manages(world);
    assert_string_equal(world->error, SD_BUS_ERROR_FAILED);
    world->failure = -ENOMEM;
    manages(world);
    assert_string_equal(world->error, SD_BUS_ERROR_NO_MEMORY);
    world->failure = -EINVAL;
    manages(world);
    assert_string_equal(world->error, SD_BUS_ERROR_INVALID_ARGS);
    assert_int_equal(world->n_replies, 4);
}

/* ---- Limits ---- */

TEST(one_connection_may_have_so_many_calls_wait)
{
    _cleanup_world_ struct world *world = world_new(BUS_SYSTEM);

    world->rig->config.max_calls_per_user = 2;
    manages(world);
    manages(world);
    manages(world);
    assert_int_equal(world->n_questions, 2);
    assert_string_equal(world->error, "org.vmferry.Error.LimitExceeded");
}

TEST(one_user_may_ask_polkit_so_often_at_once)
{
    _cleanup_world_ struct world *world = world_new(BUS_SYSTEM);
    char sender[16];

    for (int i = 0; i < 17; i++) {
        snprintf(sender, sizeof(sender), ":1.%d", i);
        manages_as(world, sender, false);
    }
    assert_int_equal(world->n_questions, 16);
    assert_int_equal(world->n_replies, 1);
    assert_string_equal(world->error, "org.vmferry.Error.LimitExceeded");
    world->uid = 0;
    manages(world);
    assert_int_equal(world->n_ran, 1); /* none of root's is refused for them */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(root_and_the_owner_may),
        CASE(on_a_bus_of_a_user_no_other_one_may),
        CASE(a_caller_that_has_gone_is_dropped),
        CASE(polkit_is_asked_and_its_yes_counts),
        CASE(its_no_counts_and_so_does_a_challenge),
        CASE(an_error_is_a_no),
        CASE(a_yes_counts_for_the_migration_that_was_asked_about),
        CASE(a_yes_counts_for_no_other_one_at_the_same_path),
        CASE(a_caller_that_goes_takes_its_question_back),
        CASE(a_new_migration_is_described_to_polkit),
        CASE(what_the_host_refuses_has_a_name_of_d_bus),
        CASE(one_connection_may_have_so_many_calls_wait),
        CASE(one_user_may_ask_polkit_so_often_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
