/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/bus/broker-object.h"

#include <errno.h>
#include <string.h>

#include "broker/bus/internal.h"
#include "broker/bus/list.h"
#include "broker/bus/names.h"
#include "broker/bus/options.h"
#include "broker/bus/totals-property.h"
#include "broker/errors.h"
#include "broker/migration/admit.h"
#include "broker/migration/permitted.h"
#include "broker/migration/setup.h"
#include "broker/net/port.h"
#include "common/cleanup.h"
#include "version.h"

static const char *const features[] = {"tls",
                                       "plain",
                                       "streams",
                                       "bandwidth-limit",
                                       "open-stream",
                                       "add-stream",
                                       "add-peer-connection",
                                       "resume",
                                       "layout-libvirt",
                                       "outcome",
                                       "list",
                                       "progress",
                                       "reload",
                                       "totals"};

static int reply_migration(sd_bus_message *m, const struct migration *migration)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
    const struct identity *identity = migration_identity(migration);
    char path[OBJECT_PATH_MAX];
    int r = sd_bus_message_new_method_return(m, &reply);

    object_path(identity, path);
    if (r >= 0)
        r = sd_bus_message_append(reply, "o", path);
    if (r >= 0 && identity->role == ROLE_INCOMING) {
        r = sd_bus_message_sensitive(reply); /* the memory is overwritten when it goes */
        if (r >= 0)
            r = sd_bus_message_append(reply, "s", migration_status(migration)->ticket);
    }
    return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

/* The same call again, with the same client-id, finds what the first one made. */
static int reply_again(sd_bus_message *m, const struct migration *migration, const char *vm,
                       sd_bus_error *error)
{
    const struct identity *identity = migration_identity(migration);
    const char *client_id = migration_options(migration)->client_id;

    if (strcmp(identity->vm, vm) != 0)
        return error_invalid(error, "The client-id '%s' is that of migration %s, which is of VM '%s'.",
                             client_id, identity->id_text, identity->vm);
    if (identity->role == ROLE_INCOMING && !migration_status(migration)->ticket)
        return error_set(error, VF_ERROR_TICKET_USED,
                         "Migration %s of VM '%s' (client-id '%s') is %s: its ticket has served already.",
                         identity->id_text, identity->vm, client_id, state_text(identity->state));
    return reply_migration(m, migration);
}

/* The options of a call, as far as this user may have them. */
static int read_options(struct bus *bus, sd_bus_message *m, enum message_role role, uid_t uid,
                        struct options *ret, sd_bus_error *error)
{
    int r = options_parse(m, role, bus->config, ret, error);

    if (r >= 0)
        r = options_find_owner(bus->config, ret, uid, error);
    if (r >= 0)
        r = permitted_options(bus->config, uid, ret, error);
    if (r < 0 || !ret->tie_to_caller)
        return r;
    ret->tied_to = strdup(sd_bus_message_get_sender(m));
    return ret->tied_to ? 0 : -ENOMEM;
}

static int call_new(struct bus *bus, sd_bus_message *m, enum message_role role, uid_t uid,
                    sd_bus_error *error)
{
    _cleanup_(options_clear) struct options options = {0};
    struct migration *migration;
    const char *vm, *ticket = NULL;
    int r = subject_read_call(m, role, &vm, &ticket, error);

    if (r >= 0)
        r = read_options(bus, m, role, uid, &options, error);
    if (r < 0)
        return r;
    migration = admit_find_client_id(bus->registry, role, options.client_id, uid);
    if (migration)
        return reply_again(m, migration, vm, error);
    r = admit_new(bus->registry, bus->config, role, vm, uid, error);
    if (r >= 0)
        r = role == ROLE_INCOMING
                ? migration_prepare(bus->services, vm, &options, uid, &migration, error)
                : migration_start(bus->services, vm, ticket, &options, uid, &migration, error);
    return r < 0 ? r : reply_migration(m, migration);
}

static int call_prepare_incoming(struct bus *bus, sd_bus_message *m, uid_t uid, sd_bus_error *error)
{
    return call_new(bus, m, ROLE_INCOMING, uid, error);
}

static int call_start_outgoing(struct bus *bus, sd_bus_message *m, uid_t uid, sd_bus_error *error)
{
    return call_new(bus, m, ROLE_OUTGOING, uid, error);
}

/* Before a call is held until it is known who calls: one that cannot succeed is refused, so that what is held
 * is small. */
static int check_new(const struct bus *bus, sd_bus_message *m, enum message_role role, sd_bus_error *error)
{
    _cleanup_(options_clear) struct options options = {0};
    const char *vm, *ticket = "";
    int r = subject_read_call(m, role, &vm, &ticket, error);

    if (r >= 0 && strlen(ticket) >= TICKET_TEXT_MAX)
        return error_set(error, VF_ERROR_INVALID_TICKET,
                         "That is no ticket: it has %zu bytes, and none has more than %d. Pass exactly the "
                         "text that PrepareIncoming gave, from 'vmferry1:' to its end.",
                         strlen(ticket), TICKET_TEXT_MAX - 1);
    if (r >= 0)
        r = options_parse(m, role, bus->config, &options, error);
    return r < 0 ? r : sd_bus_message_rewind(m, true);
}

static int on_prepare_incoming(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct bus *bus = userdata;
    int r = check_new(bus, m, ROLE_INCOMING, error);

    return r < 0 ? r : caller_resolve(&bus->calls, m, ACTION_PREPARE, call_prepare_incoming, error);
}

static int on_start_outgoing(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct bus *bus = userdata;
    int r = sd_bus_message_sensitive(m); /* the ticket */

    if (r >= 0)
        r = check_new(bus, m, ROLE_OUTGOING, error);
    return r < 0 ? r : caller_resolve(&bus->calls, m, ACTION_START, call_start_outgoing, error);
}

static int on_list_migrations(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    const struct bus *bus = userdata;
    const struct entry *entry;
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
    int r = sd_bus_message_new_method_return(m, &reply);

    if (r >= 0)
        r = sd_bus_message_open_container(reply, 'a', "(ssssuo)");
    for (entry = registry_next(bus->registry, NULL); entry; entry = registry_next(bus->registry, entry)) {
        const struct identity *identity = &entry->identity;
        char path[OBJECT_PATH_MAX];

        object_path(identity, path);
        if (r >= 0)
            r = sd_bus_message_append(reply, "(ssssuo)", identity->id_text, identity->vm,
                                      role_text(identity->role), state_text(identity->state), identity->uid,
                                      path);
    }
    if (r >= 0)
        r = sd_bus_message_close_container(reply);
    return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

static int on_list(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    return list_reply(userdata, m, error);
}

/* What GetMigration looks for: how many there are, the user's own one of them, or else the first. */
static int find_by_id(const struct bus *bus, sd_bus_message *m, uid_t uid, const struct identity **ret,
                      sd_bus_error *error)
{
    const struct entry *entry;
    const char *role, *text;
    bool own = false;
    int n = 0, r = sd_bus_message_read(m, "ss", &role, &text);

    if (r < 0)
        return r;
    if (strcmp(role, "incoming") != 0 && strcmp(role, "outgoing") != 0)
        return error_invalid(error, "The role is '%s'; it can be 'incoming' or 'outgoing'.", role);
    for (entry = registry_next(bus->registry, NULL); entry; entry = registry_next(bus->registry, entry)) {
        const struct identity *identity = &entry->identity;

        if (strcmp(identity->id_text, text) != 0 || strcmp(role_text(identity->role), role) != 0)
            continue;
        if (n++ == 0 || (!own && identity->uid == uid))
            *ret = identity;
        own = own || identity->uid == uid;
    }
    if (n > 0)
        return n;
    return error_set(error, VF_ERROR_NO_SUCH_MIGRATION,
                     "There is no %s migration '%s'. ListMigrations tells.", role, text);
}

static int reply_path(sd_bus_message *m, const struct identity *identity)
{
    char path[OBJECT_PATH_MAX];

    object_path(identity, path);
    return sd_bus_reply_method_return(m, "o", path);
}

static int call_get_migration(struct bus *bus, sd_bus_message *m, uid_t uid, sd_bus_error *error)
{
    const struct identity *identity = NULL;
    int r = find_by_id(bus, m, uid, &identity, error);

    return r < 0 ? r : reply_path(m, identity);
}

/* Only where several have the id does it matter who calls. */
static int on_get_migration(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct bus *bus = userdata;
    const struct identity *identity = NULL;
    int r = find_by_id(bus, m, (uid_t)-1, &identity, error);

    if (r == 1)
        return reply_path(m, identity);
    if (r > 1)
        r = sd_bus_message_rewind(m, true);
    return r < 0 ? r : caller_resolve(&bus->calls, m, ACTION_READ, call_get_migration, error);
}

static int call_reload(struct bus *bus, sd_bus_message *m, uid_t uid, sd_bus_error *error)
{
    uint32_t before = bus->config->max_migrations;
    int r = bus->ops->reload(bus->userdata, error);

    if (r < 0)
        return r;
    if (bus->config->max_migrations != before)
        sd_bus_emit_properties_changed(bus->bus, BROKER_PATH, BROKER_INTERFACE, "MaxMigrations", NULL);
    return sd_bus_reply_method_return(m, NULL);
}

static int on_reload(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct bus *bus = userdata;

    return caller_resolve(&bus->calls, m, ACTION_RELOAD, call_reload, error);
}

static int get_features(sd_bus *unused, const char *path, const char *interface, const char *property,
                        sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    int r = sd_bus_message_open_container(reply, 'a', "s");

    for (size_t i = 0; r >= 0 && i < sizeof(features) / sizeof(features[0]); i++)
        r = sd_bus_message_append(reply, "s", features[i]);
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int get_endpoints(sd_bus *unused, const char *path, const char *interface, const char *property,
                         sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    const struct bus *bus = userdata;
    char endpoints[TICKET_ENDPOINTS_MAX][ADDRESS_TEXT_MAX];
    size_t n = port_endpoints(bus->services->port, NULL, endpoints, TICKET_ENDPOINTS_MAX, NULL);
    int r = sd_bus_message_open_container(reply, 'a', "s");

    for (size_t i = 0; r >= 0 && i < n; i++)
        r = sd_bus_message_append(reply, "s", endpoints[i]);
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int get_version(sd_bus *unused, const char *path, const char *interface, const char *property,
                       sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    return sd_bus_message_append(reply, "s", VMFERRY_VERSION);
}

static int get_count(sd_bus *unused, const char *path, const char *interface, const char *property,
                     sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    const struct bus *bus = userdata;

    return sd_bus_message_append(reply, "u",
                                 strcmp(property, "MaxMigrations") == 0
                                     ? bus->config->max_migrations
                                     : registry_count_running(bus->registry));
}

static int get_totals(sd_bus *unused, const char *path, const char *interface, const char *property,
                      sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    const struct bus *bus = userdata;

    return totals_property_append(reply, bus->services);
}

static const sd_bus_vtable vtable[] = {
    SD_BUS_VTABLE_START(0),
    SD_BUS_METHOD_WITH_ARGS("PrepareIncoming", SD_BUS_ARGS("s", vm, "a{sv}", options),
                            SD_BUS_RESULT("o", migration, "s", ticket), on_prepare_incoming,
                            SD_BUS_VTABLE_UNPRIVILEGED | SD_BUS_VTABLE_SENSITIVE),
    SD_BUS_METHOD_WITH_ARGS("StartOutgoing", SD_BUS_ARGS("s", vm, "s", ticket, "a{sv}", options),
                            SD_BUS_RESULT("o", migration), on_start_outgoing,
                            SD_BUS_VTABLE_UNPRIVILEGED | SD_BUS_VTABLE_SENSITIVE),
    SD_BUS_METHOD_WITH_ARGS("ListMigrations", SD_BUS_NO_ARGS, SD_BUS_RESULT("a(ssssuo)", migrations),
                            on_list_migrations, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("List", SD_BUS_ARGS("a{sv}", filter), SD_BUS_RESULT("aa{sv}", migrations),
                            on_list, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("GetMigration", SD_BUS_ARGS("s", role, "s", id), SD_BUS_RESULT("o", migration),
                            on_get_migration, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("Reload", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, on_reload,
                            SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_PROPERTY("Version", "s", get_version, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("Features", "as", get_features, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("Endpoints", "as", get_endpoints, 0, 0),
    SD_BUS_PROPERTY("MaxMigrations", "u", get_count, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("ActiveMigrations", "u", get_count, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("Totals", "a{sv}", get_totals, 0, 0),
    SD_BUS_SIGNAL_WITH_ARGS("MigrationNew", SD_BUS_ARGS("o", migration), 0),
    SD_BUS_SIGNAL_WITH_ARGS("MigrationRemoved", SD_BUS_ARGS("o", migration, "s", result), 0),
    SD_BUS_VTABLE_END,
};

int broker_object_export(struct bus *bus)
{
    int r = sd_bus_add_object_vtable(bus->bus, NULL, BROKER_PATH, BROKER_INTERFACE, vtable, bus);

    return r < 0 ? r : sd_bus_add_object_manager(bus->bus, NULL, BROKER_PATH);
}
