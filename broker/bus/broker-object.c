/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "broker/bus/caller.h"
#include "broker/bus/options.h"
#include "broker/migration/migration.h"
#include "broker/migration/permitted.h"
#include "broker/net/port.h"
#include "broker/sockets/deputy.h"
#include "common/cleanup.h"
#include "version.h"

static const char *const features[] = {
    "tls",   "plain", "streams", "bandwidth-limit", "open-stream", "add-stream", "add-peer-connection",
    "resume"};

static int check_vm(const char *vm, sd_bus_error *error)
{
    size_t n = strlen(vm);

    if (n == 0)
        return error_invalid(error, "The VM's name is empty.");
    if (n > VM_MAX)
        return error_invalid(error, "The VM's name has %zu bytes; %d are allowed.", n, VM_MAX);
    if (!message_text_ok(vm, n + 1))
        return error_invalid(error, "The VM's name holds control or format characters, or is not UTF-8.");
    return 0;
}

/* The caller's own migration of this client-id; NULL when there is none. */
static struct migration *find_client_id(struct manager *manager, enum message_role role,
                                        const struct options *options, uid_t uid)
{
    struct migration *migration;

    if (!options->client_id)
        return NULL;
    TAILQ_FOREACH(migration, &manager->migrations, entry)
    if (migration->role == role && migration->uid == uid && migration->options.client_id &&
        strcmp(migration->options.client_id, options->client_id) == 0)
        return migration;
    return NULL;
}

static int reply_migration(sd_bus_message *m, const struct migration *migration)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
    int r = sd_bus_message_new_method_return(m, &reply);

    if (r >= 0)
        r = sd_bus_message_append(reply, "o", migration->path);
    if (r >= 0 && migration->role == ROLE_INCOMING) {
        r = sd_bus_message_sensitive(reply); /* the memory is overwritten when it goes */
        if (r >= 0)
            r = sd_bus_message_append(reply, "s", migration->ticket);
    }
    return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

/* The same call again, with the same client-id, finds what the first one made. */
static int reply_again(sd_bus_message *m, const struct migration *migration, const char *vm,
                       sd_bus_error *error)
{
    if (strcmp(migration->vm, vm) != 0)
        return error_invalid(error, "The client-id '%s' is that of migration %s, which is of VM '%s'.",
                             migration->options.client_id, migration->id_text, migration->vm);
    if (migration->role == ROLE_INCOMING && !migration->ticket)
        return error_set(error, VF_ERROR_TICKET_USED,
                         "Migration %s of VM '%s' (client-id '%s') is %s: its ticket has served already.",
                         migration->id_text, migration->vm, migration->options.client_id,
                         migration_state_text(migration));
    return reply_migration(m, migration);
}

static int finish_new(sd_bus_message *m, struct migration *migration)
{
    if (migration->options.tie_to_caller) {
        int r = migration_tie(migration, m);

        if (r < 0) {
            migration_stop(migration, VF_ERROR_CANCELLED, "Its caller could not be watched: %s.",
                           strerror(-r));
            return r;
        }
    }
    return reply_migration(m, migration);
}

int manager_read_call(sd_bus_message *m, enum message_role role, const char **ret_vm, const char **ret_ticket,
                      sd_bus_error *error)
{
    int r = sd_bus_message_read(m, "s", ret_vm);

    if (r >= 0 && role == ROLE_OUTGOING)
        r = sd_bus_message_read(m, "s", ret_ticket);
    return r < 0 ? r : check_vm(*ret_vm, error);
}

static int call_new(struct manager *manager, sd_bus_message *m, enum message_role role, uid_t uid,
                    sd_bus_error *error)
{
    _cleanup_(options_clear) struct options options = {0};
    struct migration *migration;
    const char *vm, *ticket = NULL;
    int r = manager_read_call(m, role, &vm, &ticket, error);

    if (r >= 0)
        r = options_read(m, role, manager->config, &options, error);
    if (r >= 0)
        r = permitted_options(manager->config, uid, &options, error);
    if (r < 0)
        return r;
    migration = find_client_id(manager, role, &options, uid);
    if (migration)
        return reply_again(m, migration, vm, error);
    r = manager_admit(manager, role, vm, uid, error);
    if (r >= 0)
        r = role == ROLE_INCOMING ? migration_prepare(manager, vm, &options, uid, &migration, error)
                                  : migration_start(manager, vm, ticket, &options, uid, &migration, error);
    return r < 0 ? r : finish_new(m, migration);
}

static int call_prepare_incoming(struct manager *manager, sd_bus_message *m, uid_t uid, sd_bus_error *error)
{
    return call_new(manager, m, ROLE_INCOMING, uid, error);
}

static int call_start_outgoing(struct manager *manager, sd_bus_message *m, uid_t uid, sd_bus_error *error)
{
    return call_new(manager, m, ROLE_OUTGOING, uid, error);
}

/* Before it is held until it is known who calls: what nothing can come of is refused, so that what is held is
 * small. */
static int check_new(struct manager *manager, sd_bus_message *m, enum message_role role, sd_bus_error *error)
{
    const char *vm, *ticket = "";
    int r = manager_read_call(m, role, &vm, &ticket, error);

    if (r >= 0 && strlen(ticket) >= TICKET_TEXT_MAX)
        return error_set(error, VF_ERROR_INVALID_TICKET,
                         "That is no ticket: it has %zu bytes, and none has more than %d. Pass exactly the "
                         "text that PrepareIncoming gave, from 'vmferry1:' to its end.",
                         strlen(ticket), TICKET_TEXT_MAX - 1);
    if (r >= 0)
        r = options_check(m, role, manager->config, error);
    return r < 0 ? r : sd_bus_message_rewind(m, true);
}

static int on_prepare_incoming(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    int r = check_new(userdata, m, ROLE_INCOMING, error);

    return r < 0 ? r : caller_resolve(userdata, m, ACTION_PREPARE, call_prepare_incoming, error);
}

static int on_start_outgoing(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    int r = sd_bus_message_sensitive(m); /* the ticket */

    if (r >= 0)
        r = check_new(userdata, m, ROLE_OUTGOING, error);
    return r < 0 ? r : caller_resolve(userdata, m, ACTION_START, call_start_outgoing, error);
}

static int on_list_migrations(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct manager *manager = userdata;
    struct migration *migration;
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
    int r = sd_bus_message_new_method_return(m, &reply);

    (void)error;
    if (r >= 0)
        r = sd_bus_message_open_container(reply, 'a', "(ssssuo)");
    TAILQ_FOREACH(migration, &manager->migrations, entry)
    {
        if (r >= 0)
            r = sd_bus_message_append(reply, "(ssssuo)", migration->id_text, migration->vm,
                                      migration_role_text(migration), migration_state_text(migration),
                                      migration->uid, migration->path);
    }
    if (r >= 0)
        r = sd_bus_message_close_container(reply);
    return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}

static int on_get_migration(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct manager *manager = userdata;
    struct migration *migration;
    const char *role, *id;
    int r = sd_bus_message_read(m, "ss", &role, &id);

    if (r < 0)
        return r;
    if (strcmp(role, "incoming") != 0 && strcmp(role, "outgoing") != 0)
        return error_invalid(error, "The role is '%s'; it can be 'incoming' or 'outgoing'.", role);
    TAILQ_FOREACH(migration, &manager->migrations, entry)
    if (strcmp(migration->id_text, id) == 0 && strcmp(migration_role_text(migration), role) == 0)
        return sd_bus_reply_method_return(m, "o", migration->path);
    return error_set(error, VF_ERROR_NO_SUCH_MIGRATION,
                     "There is no %s migration '%s'. ListMigrations tells.", role, id);
}

static int get_features(sd_bus *bus, const char *path, const char *interface, const char *property,
                        sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    int r = sd_bus_message_open_container(reply, 'a', "s");

    (void)bus;
    (void)path;
    (void)interface;
    (void)property;
    (void)userdata;
    (void)error;
    for (size_t i = 0; r >= 0 && i < sizeof(features) / sizeof(features[0]); i++)
        r = sd_bus_message_append(reply, "s", features[i]);
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int get_endpoints(sd_bus *bus, const char *path, const char *interface, const char *property,
                         sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    struct manager *manager = userdata;
    char endpoints[TICKET_ENDPOINTS_MAX][ADDRESS_TEXT_MAX];
    size_t n = port_endpoints(manager->port, endpoints, TICKET_ENDPOINTS_MAX);
    int r = sd_bus_message_open_container(reply, 'a', "s");

    (void)bus;
    (void)path;
    (void)interface;
    (void)property;
    (void)error;
    for (size_t i = 0; r >= 0 && i < n; i++)
        r = sd_bus_message_append(reply, "s", endpoints[i]);
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

static int get_version(sd_bus *bus, const char *path, const char *interface, const char *property,
                       sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    (void)bus;
    (void)path;
    (void)interface;
    (void)property;
    (void)userdata;
    (void)error;
    return sd_bus_message_append(reply, "s", VMFERRY_VERSION);
}

static int get_count(sd_bus *bus, const char *path, const char *interface, const char *property,
                     sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    const struct manager *manager = userdata;

    (void)bus;
    (void)path;
    (void)interface;
    (void)error;
    return sd_bus_message_append(reply, "u",
                                 strcmp(property, "MaxMigrations") == 0 ? manager->config->max_migrations
                                                                        : manager->n_running);
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
    SD_BUS_METHOD_WITH_ARGS("GetMigration", SD_BUS_ARGS("s", role, "s", id), SD_BUS_RESULT("o", migration),
                            on_get_migration, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_PROPERTY("Version", "s", get_version, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("Features", "as", get_features, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("Endpoints", "as", get_endpoints, 0, 0),
    SD_BUS_PROPERTY("MaxMigrations", "u", get_count, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("ActiveMigrations", "u", get_count, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_SIGNAL_WITH_ARGS("MigrationNew", SD_BUS_ARGS("o", migration), 0),
    SD_BUS_SIGNAL_WITH_ARGS("MigrationRemoved", SD_BUS_ARGS("o", migration, "s", result), 0),
    SD_BUS_VTABLE_END,
};

int manager_export(struct manager *manager)
{
    int r = sd_bus_add_object_vtable(manager->bus, NULL, BROKER_PATH, BROKER_INTERFACE, vtable, manager);

    if (r >= 0)
        r = sd_bus_add_object_manager(manager->bus, NULL, BROKER_PATH);
    return r < 0 ? r : migration_export(manager);
}
