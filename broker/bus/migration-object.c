/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/migration.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "broker/bus/caller.h"
#include "broker/bus/properties.h"
#include "common/cleanup.h"

const char *migration_role_text(const struct migration *migration)
{
    return migration->role == ROLE_INCOMING ? "incoming" : "outgoing";
}

const char *migration_state_text(const struct migration *migration)
{
    static const char *const texts[STATE_MAX_] = {
        [STATE_WAITING] = "waiting",         [STATE_CONNECTED] = "connected", [STATE_ACTIVE] = "active",
        [STATE_INTERRUPTED] = "interrupted", [STATE_FINISHED] = "finished",
    };

    return texts[migration->state];
}

/* The bus is answered by on_set_limit(), which asks who the caller is first; it never comes here. */
static int set_denied(sd_bus *bus, const char *path, const char *interface, const char *property,
                      sd_bus_message *value, void *userdata, sd_bus_error *error)
{
    (void)bus;
    (void)path;
    (void)interface;
    (void)property;
    (void)value;
    (void)userdata;
    return sd_bus_error_set(error, SD_BUS_ERROR_ACCESS_DENIED, "Set BandwidthLimit through the bus.");
}

/* ---- Methods ---- */

struct migration *migration_find_for(struct manager *manager, sd_bus_message *m, sd_bus_error *error)
{
    const char *path = sd_bus_message_get_path(m);
    struct migration *migration = manager_find_path(manager, path);

    if (!migration)
        error_set(error, VF_ERROR_NO_SUCH_MIGRATION,
                  "There is no migration %s (any more). ListMigrations tells.", path + strlen(BROKER_PATH));
    return migration;
}

static int call_cancel(struct manager *manager, sd_bus_message *m, uid_t uid, sd_bus_error *error)
{
    struct migration *migration = migration_find_for(manager, m, error);

    if (!migration)
        return -ENOENT;
    migration_stop(migration, VF_ERROR_CANCELLED, "Cancelled at the %s by uid %u.",
                   migration->role == ROLE_INCOMING ? "destination" : "source", uid);
    return sd_bus_reply_method_return(m, NULL);
}

static int call_forget(struct manager *manager, sd_bus_message *m, uid_t uid, sd_bus_error *error)
{
    struct migration *migration = migration_find_for(manager, m, error);

    (void)uid;
    if (!migration)
        return -ENOENT;
    if (migration->state != STATE_FINISHED)
        return error_set(
            error, VF_ERROR_VM_BUSY,
            "Migration %s of VM '%s' is %s; only a finished one can be forgotten. Cancel it first.",
            migration->id_text, migration->vm, migration_state_text(migration));
    migration_forget(migration);
    return sd_bus_reply_method_return(m, NULL);
}

static int call_wait(struct manager *manager, sd_bus_message *m, uid_t uid, sd_bus_error *error)
{
    struct migration *migration = migration_find_for(manager, m, error);

    (void)uid;
    if (!migration)
        return -ENOENT;
    if (migration->state == STATE_FINISHED) {
        migration_reply_result(migration, m);
        return 1;
    }
    if (migration->n_waiters == WAITERS_MAX)
        return error_set(error, VF_ERROR_LIMIT_EXCEEDED, "%d calls wait for migration %s already.",
                         WAITERS_MAX, migration->id_text);
    migration->waiters[migration->n_waiters++] = sd_bus_message_ref(m);
    return 1;
}

static int check_running(const struct migration *migration, sd_bus_error *error)
{
    if (migration->state != STATE_FINISHED)
        return 0;
    return error_set(error, VF_ERROR_NO_SUCH_MIGRATION, "Migration %s of VM '%s' is finished.",
                     migration->id_text, migration->vm);
}

/* The index of a running migration's stream. */
static int find_stream(const struct migration *migration, const char *name, uint32_t *ret,
                       sd_bus_error *error)
{
    int stream = options_stream(&migration->options, name);

    if (stream < 0)
        return error_set(error, VF_ERROR_NO_SUCH_STREAM,
                         "Migration %s of VM '%s' has no stream '%s'. See 'streams'.", migration->id_text,
                         migration->vm, name);
    *ret = (uint32_t)stream;
    return check_running(migration, error);
}

static int call_open_stream(struct manager *manager, sd_bus_message *m, uid_t uid, sd_bus_error *error)
{
    struct migration *migration = migration_find_for(manager, m, error);
    _cleanup_fd_ int fd = -1;
    const char *name;
    uint32_t stream = 0;
    int r;

    (void)uid;
    if (!migration)
        return -ENOENT;
    r = sd_bus_message_read(m, "s", &name);
    if (r >= 0)
        r = find_stream(migration, name, &stream, error);
    if (r >= 0)
        r = migration_open_stream(migration, stream, &fd, error);
    return r < 0 ? r : sd_bus_reply_method_return(m, "h", fd);
}

static int call_add_stream(struct manager *manager, sd_bus_message *m, uid_t uid, sd_bus_error *error)
{
    struct migration *migration = migration_find_for(manager, m, error);
    const char *name;
    uint32_t stream = 0;
    int fd, r;

    (void)uid;
    if (!migration)
        return -ENOENT;
    r = sd_bus_message_read(m, "s", &name);
    if (r >= 0)
        r = find_stream(migration, name, &stream, error);
    if (r >= 0)
        r = sd_bus_message_read(m, "h", &fd);
    if (r >= 0)
        r = migration_add_stream(migration, stream, fd, error);
    return r < 0 ? r : sd_bus_reply_method_return(m, NULL);
}

static int call_add_peer_connection(struct manager *manager, sd_bus_message *m, uid_t uid,
                                    sd_bus_error *error)
{
    struct migration *migration = migration_find_for(manager, m, error);
    int fd, r;

    (void)uid;
    if (!migration)
        return -ENOENT;
    r = check_running(migration, error);
    if (r >= 0)
        r = sd_bus_message_read(m, "h", &fd);
    if (r >= 0)
        r = migration_add_peer(migration, fd, error);
    return r < 0 ? r : sd_bus_reply_method_return(m, NULL);
}

/* Before it is held until it is known who calls: a stream's name is short. */
static int check_held(const struct migration *migration, sd_bus_message *m, sd_bus_error *error)
{
    const char *name;
    int r;

    if (!sd_bus_message_has_signature(m, "s") && !sd_bus_message_has_signature(m, "sh"))
        return 0;
    r = sd_bus_message_read(m, "s", &name);
    if (r >= 0 && strlen(name) >= MESSAGE_STREAM_MAX)
        return error_set(error, VF_ERROR_NO_SUCH_STREAM,
                         "Migration %s of VM '%s' has no stream '%.100s…'. See 'streams'.",
                         migration->id_text, migration->vm, name);
    return r < 0 ? r : sd_bus_message_rewind(m, true);
}

static int on_method(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    static const struct {
        const char *member;
        call_t call;
    } calls[] = {
        {"Cancel", call_cancel},        {"Wait", call_wait},
        {"Forget", call_forget},        {"OpenStream", call_open_stream},
        {"AddStream", call_add_stream}, {"AddPeerConnection", call_add_peer_connection},
    };
    struct migration *migration = userdata;
    int r = check_held(migration, m, error);

    if (r < 0)
        return r;
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
        if (strcmp(sd_bus_message_get_member(m), calls[i].member) == 0)
            return caller_resolve(migration->manager, m, ACTION_MANAGE, calls[i].call, error);
    return -ENOSYS;
}

static int limit_invalid(sd_bus_error *error)
{
    return error_invalid(error, "BandwidthLimit is of type 't' (bytes/s, 0 = none).");
}

static int call_set_limit(struct manager *manager, sd_bus_message *m, uid_t uid, sd_bus_error *error)
{
    struct migration *migration = migration_find_for(manager, m, error);
    uint64_t limit;
    int r;

    (void)uid;
    if (!migration)
        return -ENOENT;
    r = check_running(migration, error);
    if (r < 0)
        return r;
    r = sd_bus_message_skip(m, "ss");
    if (r >= 0)
        r = sd_bus_message_read(m, "v", "t", &limit);
    if (r < 0)
        return limit_invalid(error);
    migration_set_limit(migration, limit);
    return sd_bus_reply_method_return(m, NULL);
}

/*
 * A property's setter must answer at once, and who the caller is takes a question to the bus. So this one Set
 * is caught before the vtable sees it.
 */
static int on_set_limit(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct manager *manager = userdata;
    const char *interface, *property, *type;
    int r;

    if (!sd_bus_message_is_method_call(m, "org.freedesktop.DBus.Properties", "Set") ||
        !sd_bus_message_has_signature(m, "ssv"))
        return 0;
    r = sd_bus_message_read(m, "ss", &interface, &property);
    if (r < 0)
        return r;
    if (strcmp(interface, MIGRATION_INTERFACE) == 0 && strcmp(property, "BandwidthLimit") == 0 &&
        manager_find_path(manager, sd_bus_message_get_path(m))) {
        r = sd_bus_message_peek_type(m, NULL, &type);
        if (r >= 0 && strcmp(type, "t") != 0)
            return limit_invalid(error);
        if (r >= 0)
            r = sd_bus_message_rewind(m, true);
        return r < 0 ? r : caller_resolve(manager, m, ACTION_MANAGE, call_set_limit, error);
    }
    return sd_bus_message_rewind(m, true) < 0 ? -EIO : 0;
}

static const sd_bus_vtable vtable[] = {
    SD_BUS_VTABLE_START(0),
    SD_BUS_METHOD("Cancel", "", "", on_method, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("Wait", SD_BUS_NO_ARGS, SD_BUS_RESULT("s", result), on_method,
                            SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("Forget", "", "", on_method, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("OpenStream", SD_BUS_ARGS("s", stream), SD_BUS_RESULT("h", socket), on_method,
                            SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("AddStream", SD_BUS_ARGS("s", stream, "h", socket), SD_BUS_NO_RESULT, on_method,
                            SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("AddPeerConnection", SD_BUS_ARGS("h", socket), SD_BUS_NO_RESULT, on_method,
                            SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_PROPERTY("Id", "s", migration_get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("Vm", "s", migration_get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("Role", "s", migration_get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("Security", "s", migration_get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("OwnerUid", "u", migration_get_uint32, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("Sockets", "a{ss}", migration_get_sockets, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("StartedUsec", "t", migration_get_number, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("State", "s", migration_get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("Result", "s", migration_get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("ErrorName", "s", migration_get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("ErrorMessage", "s", migration_get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("Peer", "s", migration_get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("HelperUnit", "s", migration_get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("FinishedUsec", "t", migration_get_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_WRITABLE_PROPERTY("BandwidthLimit", "t", migration_get_number, set_denied, 0,
                             SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE | SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_PROPERTY("BytesSent", "t", migration_get_number, 0, 0),
    SD_BUS_PROPERTY("BytesReceived", "t", migration_get_number, 0, 0),
    SD_BUS_PROPERTY("Rate", "t", migration_get_number, 0, 0),
    SD_BUS_PROPERTY("Channels", "a(sutts)", migration_get_channels, 0, 0),
    SD_BUS_PROPERTY("RoundTripUsec", "t", migration_get_number, 0, 0),
    SD_BUS_PROPERTY("Reconnects", "u", migration_get_uint32, 0, 0),
    SD_BUS_PROPERTY("Progress", "d", migration_get_progress, 0, 0),
    SD_BUS_VTABLE_END,
};

/* ---- Objects and signals ---- */

static int find_object(sd_bus *bus, const char *path, const char *interface, void *userdata, void **ret,
                       sd_bus_error *error)
{
    struct migration *migration = manager_find_path(userdata, path);

    (void)bus;
    (void)interface;
    (void)error;
    *ret = migration;
    return migration != NULL;
}

static int list_objects(sd_bus *bus, const char *prefix, void *userdata, char ***ret, sd_bus_error *error)
{
    struct manager *manager = userdata;
    struct migration *migration;
    size_t n = 0;
    char **paths = calloc(manager->n_running + manager->n_finished + 1, sizeof(*paths));

    (void)bus;
    (void)prefix;
    (void)error;
    if (!paths)
        return -ENOMEM;
    TAILQ_FOREACH(migration, &manager->migrations, entry)
    {
        paths[n] = strdup(migration->path);
        if (!paths[n++]) {
            for (size_t i = 0; i < n; i++)
                free(paths[i]);
            free(paths);
            return -ENOMEM;
        }
    }
    *ret = paths;
    return 1;
}

int migration_export(struct manager *manager)
{
    /* One for each role: sd-bus takes no fallback at the path of an object, which BROKER_PATH is. */
    int r = sd_bus_add_fallback_vtable(manager->bus, NULL, BROKER_PATH "/incoming", MIGRATION_INTERFACE,
                                       vtable, find_object, manager);

    if (r >= 0)
        r = sd_bus_add_fallback_vtable(manager->bus, NULL, BROKER_PATH "/outgoing", MIGRATION_INTERFACE,
                                       vtable, find_object, manager);
    if (r >= 0)
        r = sd_bus_add_node_enumerator(manager->bus, NULL, BROKER_PATH, list_objects, manager);
    if (r >= 0)
        r = sd_bus_add_filter(manager->bus, NULL, on_set_limit, manager);
    return r;
}

void migration_emit_changed(struct migration *migration, const char *property, ...)
{
    const char *names[16] = {property};
    union {
        const char **from;
        char **to;
    } strv = {names}; /* sd-bus writes nothing to it */
    size_t n = 1;
    va_list args;

    va_start(args, property);
    while (n < 15 && (names[n] = va_arg(args, const char *)))
        n++;
    va_end(args);
    names[n] = NULL;
    /* Signals are a courtesy; what counts is in the properties. */
    sd_bus_emit_properties_changed_strv(migration->manager->bus, migration->path, MIGRATION_INTERFACE,
                                        strv.to);
}

void migration_emit_new(struct migration *migration)
{
    sd_bus_emit_object_added(migration->manager->bus, migration->path);
    sd_bus_emit_signal(migration->manager->bus, BROKER_PATH, BROKER_INTERFACE, "MigrationNew", "o",
                       migration->path);
    sd_bus_emit_properties_changed(migration->manager->bus, BROKER_PATH, BROKER_INTERFACE, "ActiveMigrations",
                                   NULL);
}

void migration_emit_removed(struct migration *migration)
{
    sd_bus_emit_object_removed(migration->manager->bus, migration->path);
    sd_bus_emit_signal(migration->manager->bus, BROKER_PATH, BROKER_INTERFACE, "MigrationRemoved", "os",
                       migration->path, vf_result_to_string(migration->result));
}

static void reply_one(struct migration *migration, sd_bus_message *m)
{
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;

    if (migration->result == VF_RESULT_DONE) {
        sd_bus_reply_method_return(m, "s", vf_result_to_string(migration->result));
        return;
    }
    error_set(&error, migration->error, "%s", migration->message ? migration->message : "");
    sd_bus_reply_method_error(m, &error);
}

void migration_reply_result(struct migration *migration, sd_bus_message *m)
{
    if (m) {
        reply_one(migration, m);
        return;
    }
    while (migration->n_waiters > 0) {
        sd_bus_message *waiter = migration->waiters[--migration->n_waiters];

        reply_one(migration, waiter);
        sd_bus_message_unref(waiter);
    }
    sd_bus_emit_properties_changed(migration->manager->bus, BROKER_PATH, BROKER_INTERFACE, "ActiveMigrations",
                                   NULL);
}
