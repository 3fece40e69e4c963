/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/bus/migration-object.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "broker/bus/internal.h"
#include "broker/bus/names.h"
#include "broker/bus/properties.h"
#include "broker/bus/reports.h"
#include "broker/errors.h"
#include "broker/migration/supply.h"
#include "broker/migration/telling.h"
#include "common/cleanup.h"

/* ---- Methods, once it is known that the caller may ---- */

static int call_cancel(struct bus *bus, sd_bus_message *m, uid_t uid, sd_bus_error *error)
{
    struct migration *migration = subject_find(bus->registry, m, error);

    if (!migration)
        return -ENOENT;
    migration_stop(migration, VF_ERROR_CANCELLED, "Cancelled at the %s by uid %u.",
                   migration_identity(migration)->role == ROLE_INCOMING ? "destination" : "source", uid);
    return sd_bus_reply_method_return(m, NULL);
}

static int call_forget(struct bus *bus, sd_bus_message *m, uid_t uid, sd_bus_error *error)
{
    struct migration *migration = subject_find(bus->registry, m, error);
    const struct identity *identity;

    if (!migration)
        return -ENOENT;
    identity = migration_identity(migration);
    if (identity->state != STATE_FINISHED)
        return error_set(error, VF_ERROR_VM_BUSY,
                         "Migration %s of VM '%s' is %s; only a finished one can be forgotten. %s",
                         identity->id_text, identity->vm, state_text(identity->state),
                         identity->state == STATE_WAITING ? "Wait for its end, or Cancel it."
                                                          : "Wait for its end.");
    migration_forget(migration);
    return sd_bus_reply_method_return(m, NULL);
}

static int call_wait(struct bus *bus, sd_bus_message *m, uid_t uid, sd_bus_error *error)
{
    struct migration *migration = subject_find(bus->registry, m, error);

    if (!migration)
        return -ENOENT;
    if (migration_identity(migration)->state != STATE_FINISHED)
        return waiters_add(&bus->waiters, migration, m, error);
    waiters_reply(migration, m);
    return 1;
}

static int no_such_stream(const struct migration *migration, const char *name, sd_bus_error *error)
{
    const struct identity *identity = migration_identity(migration);

    return error_set(error, VF_ERROR_NO_SUCH_STREAM,
                     strlen(name) < MESSAGE_STREAM_MAX
                         ? "Migration %s of VM '%s' has no stream '%.100s'. See 'streams'."
                         : "Migration %s of VM '%s' has no stream '%.100s…'. See 'streams'.",
                     identity->id_text, identity->vm, name);
}

/* The stream that comes next in m, of a running migration. */
static int read_stream(struct bus *bus, sd_bus_message *m, struct migration **ret, uint32_t *ret_stream,
                       sd_bus_error *error)
{
    struct migration *migration = subject_find(bus->registry, m, error);
    const char *name;
    int r, stream;

    if (!migration)
        return -ENOENT;
    r = sd_bus_message_read(m, "s", &name);
    if (r < 0)
        return r;
    stream = options_stream(migration_options(migration), name);
    if (stream < 0)
        return no_such_stream(migration, name, error);
    *ret_stream = (uint32_t)stream;
    *ret = subject_find_running(bus->registry, m, error);
    return *ret ? 0 : -ENOENT;
}

static int call_open_stream(struct bus *bus, sd_bus_message *m, uid_t uid, sd_bus_error *error)
{
    struct migration *migration = NULL;
    _cleanup_fd_ int fd = -1;
    uint32_t stream = 0;
    int r = read_stream(bus, m, &migration, &stream, error);

    if (r >= 0)
        r = supply_open_stream(migration, stream, &fd, error);
    return r < 0 ? r : sd_bus_reply_method_return(m, "h", fd);
}

static int call_add_stream(struct bus *bus, sd_bus_message *m, uid_t uid, sd_bus_error *error)
{
    struct migration *migration = NULL;
    uint32_t stream = 0;
    int fd, r = read_stream(bus, m, &migration, &stream, error);

    if (r >= 0)
        r = sd_bus_message_read(m, "h", &fd);
    if (r >= 0)
        r = supply_add_stream(migration, stream, fd, error);
    return r < 0 ? r : sd_bus_reply_method_return(m, NULL);
}

static int call_add_peer_connection(struct bus *bus, sd_bus_message *m, uid_t uid, sd_bus_error *error)
{
    struct migration *migration = subject_find_running(bus->registry, m, error);
    int fd, r;

    if (!migration)
        return -ENOENT;
    r = sd_bus_message_read(m, "h", &fd);
    if (r >= 0)
        r = supply_add_peer(migration, fd, error);
    return r < 0 ? r : sd_bus_reply_method_return(m, NULL);
}

static int call_report(struct bus *bus, sd_bus_message *m, uid_t uid, sd_bus_error *error)
{
    struct migration *migration = subject_find(bus->registry, m, error);
    struct outcome outcome;
    int r;

    if (!migration)
        return -ENOENT;
    r = reports_read_outcome(m, &outcome, error);
    if (r >= 0)
        r = telling_outcome(migration_telling(migration), &outcome, error);
    return r < 0 ? r : sd_bus_reply_method_return(m, NULL);
}

static int call_report_progress(struct bus *bus, sd_bus_message *m, uid_t uid, sd_bus_error *error)
{
    struct migration *migration = subject_find_running(bus->registry, m, error);
    struct progress progress;
    int r;

    if (!migration)
        return -ENOENT;
    r = reports_read_progress(m, &progress, error);
    if (r >= 0)
        r = telling_progress(migration_telling(migration), &progress, error);
    return r < 0 ? r : sd_bus_reply_method_return(m, NULL);
}

/* ---- Methods, as they come ---- */

static int hold(struct bus *bus, sd_bus_message *m, call_t call, sd_bus_error *error)
{
    return caller_resolve(&bus->calls, m, ACTION_MANAGE, call, error);
}

/* The same for one that begins with a stream's name, which is short: so what is held is small. */
static int hold_for_stream(struct bus *bus, sd_bus_message *m, call_t call, sd_bus_error *error)
{
    const char *name;
    int r = sd_bus_message_read(m, "s", &name);

    if (r >= 0 && strlen(name) >= MESSAGE_STREAM_MAX)
        return no_such_stream(object_find(bus->registry, sd_bus_message_get_path(m))->migration, name, error);
    if (r >= 0)
        r = sd_bus_message_rewind(m, true);
    return r < 0 ? r : hold(bus, m, call, error);
}

static int on_cancel(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    return hold(userdata, m, call_cancel, error);
}

static int on_wait(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    return hold(userdata, m, call_wait, error);
}

static int on_forget(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    return hold(userdata, m, call_forget, error);
}

static int on_open_stream(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    return hold_for_stream(userdata, m, call_open_stream, error);
}

static int on_add_stream(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    return hold_for_stream(userdata, m, call_add_stream, error);
}

static int on_add_peer_connection(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    return hold(userdata, m, call_add_peer_connection, error);
}

/* What is read before it is held is known to be small. */
static int hold_report(struct bus *bus, sd_bus_message *m, call_t call, int r, sd_bus_error *error)
{
    if (r >= 0)
        r = sd_bus_message_rewind(m, true);
    return r < 0 ? r : caller_resolve(&bus->calls, m, ACTION_REPORT, call, error);
}

static int on_report(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct outcome outcome;

    return hold_report(userdata, m, call_report, reports_read_outcome(m, &outcome, error), error);
}

static int on_report_progress(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct progress progress;

    return hold_report(userdata, m, call_report_progress, reports_read_progress(m, &progress, error), error);
}

/* The bus is answered by limit.c, which asks for the caller first; it never comes here. */
static int set_denied(sd_bus *bus, const char *path, const char *interface, const char *property,
                      sd_bus_message *value, void *userdata, sd_bus_error *error)
{
    return sd_bus_error_set(error, SD_BUS_ERROR_ACCESS_DENIED, "Set BandwidthLimit through the bus.");
}

static const sd_bus_vtable vtable[] = {
    SD_BUS_VTABLE_START(0),
    SD_BUS_METHOD("Cancel", "", "", on_cancel, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("Wait", SD_BUS_NO_ARGS, SD_BUS_RESULT("s", result), on_wait,
                            SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD("Forget", "", "", on_forget, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("OpenStream", SD_BUS_ARGS("s", stream), SD_BUS_RESULT("h", socket),
                            on_open_stream, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("AddStream", SD_BUS_ARGS("s", stream, "h", socket), SD_BUS_NO_RESULT,
                            on_add_stream, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("AddPeerConnection", SD_BUS_ARGS("h", socket), SD_BUS_NO_RESULT,
                            on_add_peer_connection, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("Report", SD_BUS_ARGS("s", outcome, "a{sv}", details), SD_BUS_NO_RESULT,
                            on_report, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_METHOD_WITH_ARGS("ReportProgress", SD_BUS_ARGS("a{sv}", progress), SD_BUS_NO_RESULT,
                            on_report_progress, SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_PROPERTY("Id", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("Vm", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("Role", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("Security", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("OwnerUid", "u", get_uint32, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("Sockets", "a{ss}", get_sockets, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("StartedUsec", "t", get_number, 0, SD_BUS_VTABLE_PROPERTY_CONST),
    SD_BUS_PROPERTY("State", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("Result", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("ErrorName", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("ErrorMessage", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("Peer", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("HelperUnit", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("FinishedUsec", "t", get_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("GivesUpUsec", "t", get_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_WRITABLE_PROPERTY("BandwidthLimit", "t", get_number, set_denied, 0,
                             SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE | SD_BUS_VTABLE_UNPRIVILEGED),
    SD_BUS_PROPERTY("BytesSent", "t", get_number, 0, 0),
    SD_BUS_PROPERTY("BytesReceived", "t", get_number, 0, 0),
    SD_BUS_PROPERTY("Rate", "t", get_number, 0, 0),
    SD_BUS_PROPERTY("Channels", "a(sutts)", get_channels, 0, 0),
    SD_BUS_PROPERTY("RoundTripUsec", "t", get_number, 0, 0),
    SD_BUS_PROPERTY("Reconnects", "u", get_uint32, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("Outcome", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("Phase", "s", get_text, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("Progress", "d", get_progress, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("RemainingUsec", "t", get_number, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_PROPERTY("Details", "a{sv}", get_details, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
    SD_BUS_VTABLE_END,
};

/* ---- The objects ---- */

static int find_object(sd_bus *unused, const char *path, const char *interface, void *userdata, void **ret,
                       sd_bus_error *error)
{
    struct bus *bus = userdata;

    *ret = bus;
    return object_find(bus->registry, path) != NULL;
}

static void free_list(char **paths, size_t n)
{
    while (n > 0)
        free(paths[--n]);
    free(paths);
}

static int list_objects(sd_bus *unused, const char *prefix, void *userdata, char ***ret, sd_bus_error *error)
{
    const struct registry *registry = ((const struct bus *)userdata)->registry;
    char **paths = calloc(registry_count(registry) + 1, sizeof(*paths));
    const struct entry *entry;
    size_t n = 0;

    if (!paths)
        return -ENOMEM;
    for (entry = registry_next(registry, NULL); entry; entry = registry_next(registry, entry)) {
        paths[n] = malloc(OBJECT_PATH_MAX);
        if (!paths[n]) {
            free_list(paths, n);
            return -ENOMEM;
        }
        object_path(&entry->identity, paths[n++]);
    }
    *ret = paths;
    return 1;
}

int migration_object_export(struct bus *bus)
{
    /* One for each role: sd-bus takes no fallback at the path of an object, which BROKER_PATH is. */
    int r = sd_bus_add_fallback_vtable(bus->bus, NULL, BROKER_PATH "/incoming", MIGRATION_INTERFACE, vtable,
                                       find_object, bus);

    if (r >= 0)
        r = sd_bus_add_fallback_vtable(bus->bus, NULL, BROKER_PATH "/outgoing", MIGRATION_INTERFACE, vtable,
                                       find_object, bus);
    return r < 0 ? r : sd_bus_add_node_enumerator(bus->bus, NULL, BROKER_PATH, list_objects, bus);
}
