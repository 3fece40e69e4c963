/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/bus/limit.h"

#include <errno.h>
#include <string.h>

#include "broker/bus/internal.h"
#include "broker/bus/names.h"
#include "broker/errors.h"

static int limit_invalid(sd_bus_error *error)
{
    return error_invalid(error, "BandwidthLimit is of type 't' (bytes/s, 0 = none).");
}

static int call_set_limit(struct bus *bus, sd_bus_message *m, uid_t uid, sd_bus_error *error)
{
    struct migration *migration = subject_find_running(bus->registry, m, error);
    uint64_t limit;
    int r;

    if (!migration)
        return -ENOENT;
    r = sd_bus_message_skip(m, "ss");
    if (r >= 0)
        r = sd_bus_message_read(m, "v", "t", &limit);
    if (r < 0)
        return limit_invalid(error);
    migration_set_limit(migration, limit);
    return sd_bus_reply_method_return(m, NULL);
}

/*
 * A property's setter must answer at once, and it takes a question to the bus to know the caller. So this one
 * Set is caught before the vtable sees it.
 */
static int on_set_limit(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct bus *bus = userdata;
    const char *interface, *property, *type;
    int r;

    if (!sd_bus_message_is_method_call(m, "org.freedesktop.DBus.Properties", "Set") ||
        !sd_bus_message_has_signature(m, "ssv"))
        return 0;
    r = sd_bus_message_read(m, "ss", &interface, &property);
    if (r < 0)
        return r;
    if (strcmp(interface, MIGRATION_INTERFACE) == 0 && strcmp(property, "BandwidthLimit") == 0 &&
        object_find(bus->registry, sd_bus_message_get_path(m))) {
        r = sd_bus_message_peek_type(m, NULL, &type);
        if (r >= 0 && strcmp(type, "t") != 0)
            return limit_invalid(error);
        if (r >= 0)
            r = sd_bus_message_rewind(m, true);
        return r < 0 ? r : caller_resolve(&bus->calls, m, ACTION_MANAGE, call_set_limit, error);
    }
    return sd_bus_message_rewind(m, true) < 0 ? -EIO : 0;
}

int limit_export(struct bus *bus)
{
    return sd_bus_add_filter(bus->bus, NULL, on_set_limit, bus);
}
