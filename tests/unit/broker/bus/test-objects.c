/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "../migration/migration-rig.h"
#include "bus-pair.h"

#include "broker/bus/broker-object.h"
#include "broker/bus/events.h"
#include "broker/bus/internal.h"
#include "broker/bus/limit.h"
#include "broker/bus/migration-object.h"
#include "broker/bus/names.h"

/* The broker's objects, as root sees them who calls from the other end of the connection. */

struct world {
    struct rig *rig;
    struct bus_pair pair;
    struct bus bus;
    char signals[512];     /* the names of those that came, each with a blank behind it */
    sd_bus_message *reply; /* owned; the last one */
    unsigned n_replies;
};

static int on_message(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct world *world = userdata;

    if (sd_bus_message_is_method_call(m, NULL, "GetConnectionUnixUser"))
        return sd_bus_reply_method_return(m, "u", 0);
    if (sd_bus_message_is_signal(m, NULL, NULL))
        strcat(strcat(world->signals, sd_bus_message_get_member(m)), " ");
    return 0;
}

static int on_reply(sd_bus_message *m, void *userdata, sd_bus_error *unused)
{
    struct world *world = userdata;

    sd_bus_message_unref(world->reply);
    world->reply = sd_bus_message_ref(m);
    world->n_replies++;
    return 0;
}

static struct world *world_new(void)
{
    struct world *world = calloc(1, sizeof(*world));
    struct rig *rig = rig_new(false);

    assert_non_null(world);
    world->rig = rig;
    bus_pair_open(&world->pair, rig->event);
    world->bus = (struct bus){.bus = world->pair.broker,
                              .config = &rig->config,
                              .registry = &rig->registry,
                              .services = &rig->services};
    rig->services.events = &bus_events;
    rig->services.userdata = &world->bus;
    calls_init(&world->bus.calls, world->pair.broker, &rig->config, &rig->registry, &world->bus);
    waiters_init(&world->bus.waiters, world->pair.broker, &rig->registry);
    assert_true(broker_object_export(&world->bus) >= 0);
    assert_true(migration_object_export(&world->bus) >= 0);
    assert_true(limit_export(&world->bus) >= 0);
    assert_true(sd_bus_add_filter(world->pair.world, NULL, on_message, world) >= 0);
    return world;
}

static void world_freep(struct world **world)
{
    caller_drop_all(&(*world)->bus.calls);
    waiters_clear(&(*world)->bus.waiters);
    sd_bus_message_unref((*world)->reply);
    (*world)->rig->services.events = &rig_events;
    (*world)->rig->services.userdata = (*world)->rig;
    bus_pair_close(&(*world)->pair);
    rig_freep(&(*world)->rig);
    free(*world);
}

#define _cleanup_world_ _cleanup_(world_freep)

/* A call, answered by now or not; whether an error came. */
static bool call(struct world *world, const char *path, const char *interface, const char *member,
                 const char *types, ...)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
    unsigned before = world->n_replies;
    va_list args;

    assert_true(sd_bus_message_new_method_call(world->pair.world, &m, NULL, path, interface, member) >= 0);
    va_start(args, types);
    assert_true(sd_bus_message_appendv(m, types, args) >= 0);
    va_end(args);
    assert_true(sd_bus_message_set_sender(m, ":1.7") >= 0);
    assert_true(sd_bus_call_async(world->pair.world, NULL, m, on_reply, world, 0) >= 0);
    rig_turn(world->rig);
    return world->n_replies > before && !sd_bus_message_is_method_error(world->reply, NULL);
}

#define broker_call(world, ...)          call(world, BROKER_PATH, BROKER_INTERFACE, __VA_ARGS__)
#define migration_call(world, path, ...) call(world, path, MIGRATION_INTERFACE, __VA_ARGS__)

static const char *error_of(const struct world *world)
{
    const sd_bus_error *error = sd_bus_message_get_error(world->reply);

    return error ? strrchr(error->name, '.') + 1 : "";
}

static const char *error_text_of(const struct world *world)
{
    return sd_bus_message_get_error(world->reply)->message;
}

/* PrepareIncoming with managers that bring all connections; its path. */
static const char *prepare(struct world *world)
{
    static char path[OBJECT_PATH_MAX];
    const char *text, *ticket;

    assert_true(broker_call(world, "PrepareIncoming", "sa{sv}", "vm", 2, "endpoints", "as", 0, "client-id",
                            "s", "mine"));
    assert_true(sd_bus_message_read(world->reply, "os", &text, &ticket) >= 0);
    assert_int_equal(strncmp(ticket, "vmferry1:", 9), 0);
    snprintf(path, sizeof(path), "%s", text);
    return path;
}

static const char *get_text(struct world *world, const char *path, const char *property)
{
    const char *text;

    assert_true(
        call(world, path, "org.freedesktop.DBus.Properties", "Get", "ss", MIGRATION_INTERFACE, property));
    assert_true(sd_bus_message_read(world->reply, "v", "s", &text) >= 0);
    return text;
}

TEST(a_migration_is_made_listed_and_found)
{
    _cleanup_world_ struct world *world = world_new();
    char path[OBJECT_PATH_MAX];
    const char *id, *vm, *role, *now, *found;
    uint32_t uid;

    strcpy(path, prepare(world));
    assert_non_null(strstr(world->signals, "InterfacesAdded MigrationNew PropertiesChanged "));
    assert_true(broker_call(world, "ListMigrations", ""));
    assert_true(sd_bus_message_read(world->reply, "a(ssssuo)", 1, &id, &vm, &role, &now, &uid, &found) >= 0);
    assert_string_equal(vm, "vm");
    assert_string_equal(role, "incoming");
    assert_string_equal(now, "waiting");
    assert_string_equal(found, path);
    assert_true(broker_call(world, "GetMigration", "ss", "incoming", strrchr(path, '/') + 1));
    assert_false(broker_call(world, "GetMigration", "ss", "outgoing", strrchr(path, '/') + 1));
    assert_string_equal(error_of(world), "NoSuchMigration");
    assert_false(broker_call(world, "GetMigration", "ss", "sideways", "1"));
    assert_string_equal(error_of(world), "InvalidArgs");
}

TEST(the_same_client_id_finds_it_again)
{
    _cleanup_world_ struct world *world = world_new();
    char path[OBJECT_PATH_MAX];

    strcpy(path, prepare(world));
    assert_string_equal(prepare(world), path);
    assert_false(broker_call(world, "PrepareIncoming", "sa{sv}", "other", 1, "client-id", "s", "mine"));
    assert_non_null(strstr(error_text_of(world), "which is of VM 'vm'"));
}

TEST(bad_calls_are_refused_before_they_are_held)
{
    _cleanup_world_ struct world *world = world_new();
    char *ticket = calloc(1, TICKET_TEXT_MAX + 1);

    memset(ticket, 'x', TICKET_TEXT_MAX);
    assert_false(broker_call(world, "StartOutgoing", "ssa{sv}", "vm", ticket, 0));
    assert_string_equal(error_of(world), "InvalidTicket");
    assert_false(broker_call(world, "PrepareIncoming", "sa{sv}", "", 0));
    assert_non_null(strstr(error_text_of(world), "The VM's name is empty"));
    assert_false(
        migration_call(world, prepare(world), "OpenStream", "s", "no-name-of-a-stream-is-so-long-as-this"));
    assert_string_equal(error_of(world), "NoSuchStream");
    free(ticket);
}

TEST(its_properties_say_how_it_stands)
{
    _cleanup_world_ struct world *world = world_new();
    char path[OBJECT_PATH_MAX];
    const char *stream, *socket;
    uint64_t number;

    strcpy(path, prepare(world));
    assert_string_equal(get_text(world, path, "State"), "waiting");
    assert_string_equal(get_text(world, path, "Role"), "incoming");
    assert_string_equal(get_text(world, path, "Security"), "tls");
    assert_string_equal(get_text(world, path, "ErrorName"), "");
    assert_true(
        call(world, path, "org.freedesktop.DBus.Properties", "Get", "ss", MIGRATION_INTERFACE, "Sockets"));
    assert_true(sd_bus_message_read(world->reply, "v", "a{ss}", 1, &stream, &socket) >= 0);
    assert_string_equal(stream, "migrate");
    assert_true(
        call(world, path, "org.freedesktop.DBus.Properties", "Get", "ss", MIGRATION_INTERFACE, "BytesSent"));
    assert_true(sd_bus_message_read(world->reply, "v", "t", &number) >= 0);
    assert_int_equal(number, 0);
    assert_true(call(world, path, "org.freedesktop.DBus.Properties", "GetAll", "s", MIGRATION_INTERFACE));
    assert_true(call(world, BROKER_PATH, "org.freedesktop.DBus.Properties", "GetAll", "s", BROKER_INTERFACE));
    assert_true(call(world, BROKER_PATH, "org.freedesktop.DBus.ObjectManager", "GetManagedObjects", ""));
}

TEST(a_limit_is_set_by_its_property)
{
    _cleanup_world_ struct world *world = world_new();
    char path[OBJECT_PATH_MAX];

    strcpy(path, prepare(world));
    assert_true(call(world, path, "org.freedesktop.DBus.Properties", "Set", "ssv", MIGRATION_INTERFACE,
                     "BandwidthLimit", "t", UINT64_C(7)));
    assert_int_equal(
        migration_options(registry_next(&world->rig->registry, NULL)->migration)->bandwidth_limit, 7);
    assert_false(call(world, path, "org.freedesktop.DBus.Properties", "Set", "ssv", MIGRATION_INTERFACE,
                      "BandwidthLimit", "s", "fast"));
    assert_string_equal(error_of(world), "InvalidArgs");
}

TEST(all_that_wait_get_the_result)
{
    _cleanup_world_ struct world *world = world_new();
    char path[OBJECT_PATH_MAX];
    unsigned before;

    strcpy(path, prepare(world));
    for (int i = 0; i < 2; i++)
        migration_call(world, path, "Wait", "");
    before = world->n_replies;
    assert_false(migration_call(world, path, "Forget", ""));
    assert_string_equal(error_of(world), "VmBusy");
    assert_true(migration_call(world, path, "Cancel", ""));
    rig_result(world->rig, world->rig->stand_ins.helpers[0], VF_ERROR_CANCELLED, "Cancelled.");
    assert_int_equal(world->n_replies, before + 4);
    assert_string_equal(error_of(world), "Cancelled");
    assert_false(migration_call(world, path, "Wait", "")); /* of a finished one: at once */
    assert_string_equal(error_of(world), "Cancelled");
    assert_string_equal(get_text(world, path, "Result"), "cancelled");
    assert_false(migration_call(world, path, "OpenStream", "s", "migrate"));
    assert_string_equal(error_of(world), "NoSuchMigration");
    assert_true(migration_call(world, path, "Forget", ""));
    assert_non_null(strstr(world->signals, "InterfacesRemoved MigrationRemoved "));
    assert_false(migration_call(world, path, "Wait", ""));
}

TEST(only_so_many_may_wait_and_one_that_leaves_makes_room)
{
    _cleanup_world_ struct world *world = world_new();
    char path[OBJECT_PATH_MAX];
    unsigned before;

    strcpy(path, prepare(world));
    before = world->n_replies;
    for (int i = 0; i < WAITERS_MAX; i++)
        migration_call(world, path, "Wait", "");
    assert_int_equal(world->n_replies, before);
    assert_false(migration_call(world, path, "Wait", ""));
    assert_string_equal(error_of(world), "LimitExceeded");
    waiters_client_gone(&world->bus.waiters, ":1.7");
    before = world->n_replies;
    migration_call(world, path, "Wait", "");
    assert_int_equal(world->n_replies, before);
}

TEST(what_is_tied_to_a_client_goes_with_it)
{
    _cleanup_world_ struct world *world = world_new();

    assert_true(broker_call(world, "PrepareIncoming", "sa{sv}", "vm", 2, "endpoints", "as", 0,
                            "tie-to-caller", "b", 1));
    waiters_client_gone(&world->bus.waiters, ":1.8");
    helper_hears(world->rig->stand_ins.helpers[0], MESSAGE_START_RELAY, NULL);
    helper_hears_nothing(world->rig->stand_ins.helpers[0]);
    waiters_client_gone(&world->bus.waiters, ":1.7");
    assert_non_null(strstr(helper_hears(world->rig->stand_ins.helpers[0], MESSAGE_END, NULL).end.text,
                           "Its caller has gone"));
}

TEST(a_stream_is_known_by_its_name)
{
    _cleanup_world_ struct world *world = world_new();
    char path[OBJECT_PATH_MAX];

    strcpy(path, prepare(world));
    assert_false(migration_call(world, path, "OpenStream", "s", "other"));
    assert_string_equal(error_of(world), "NoSuchStream");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_migration_is_made_listed_and_found),
        CASE(the_same_client_id_finds_it_again),
        CASE(bad_calls_are_refused_before_they_are_held),
        CASE(its_properties_say_how_it_stands),
        CASE(a_limit_is_set_by_its_property),
        CASE(all_that_wait_get_the_result),
        CASE(only_so_many_may_wait_and_one_that_leaves_makes_room),
        CASE(what_is_tied_to_a_client_goes_with_it),
        CASE(a_stream_is_known_by_its_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
