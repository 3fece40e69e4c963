/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/bus/list.h"

#include <errno.h>
#include <string.h>

#include "broker/bus/names.h"
#include "broker/bus/properties.h"
#include "broker/errors.h"
#include "common/cleanup.h"

/* What stands in each dictionary, besides Path: properties of the migration, under their names. */
static const struct {
    const char *name, *type;
    sd_bus_property_get_t get;
} properties[] = {
    {"Id", "s", get_text},
    {"Vm", "s", get_text},
    {"Role", "s", get_text},
    {"OwnerUid", "u", get_uint32},
    {"StartedUsec", "t", get_number},
    {"FinishedUsec", "t", get_number},
    {"State", "s", get_text},
    {"Result", "s", get_text},
    {"Outcome", "s", get_text},
    {"ErrorName", "s", get_text},
    {"Peer", "s", get_text},
    {"BytesSent", "t", get_number},
    {"BytesReceived", "t", get_number},
    {"Rate", "t", get_number},
    {"Reconnects", "u", get_uint32},
    {"Phase", "s", get_text},
    {"Progress", "d", get_progress},
    {"RemainingUsec", "t", get_number},
};

struct filter {
    const char *vm, *role, *state; /* borrowed from the message; NULL: all */
    uint32_t uid;
    int running; /* −1: all */
    bool has_uid;
};

static int read_text(sd_bus_message *m, const char **ret)
{
    return sd_bus_message_read(m, "v", "s", ret);
}

static int read_key(sd_bus_message *m, const char *key, struct filter *filter, sd_bus_error *error)
{
    if (strcmp(key, "vm") == 0)
        return read_text(m, &filter->vm);
    if (strcmp(key, "role") == 0)
        return read_text(m, &filter->role);
    if (strcmp(key, "state") == 0)
        return read_text(m, &filter->state);
    if (strcmp(key, "running") == 0)
        return sd_bus_message_read(m, "v", "b", &filter->running);
    if (strcmp(key, "owner-uid") == 0) {
        filter->has_uid = true;
        return sd_bus_message_read(m, "v", "u", &filter->uid);
    }
    return error_invalid(error, "There is no key '%.40s'. Those of List stand in org.vmferry.Broker1(5).",
                         key);
}

static int read_filter(sd_bus_message *m, struct filter *ret, sd_bus_error *error)
{
    int r = sd_bus_message_enter_container(m, 'a', "{sv}");
    const char *key;

    *ret = (struct filter){.running = -1};
    while (r >= 0 && (r = sd_bus_message_enter_container(m, 'e', "sv")) > 0) {
        r = sd_bus_message_read(m, "s", &key);
        if (r >= 0)
            r = read_key(m, key, ret, error);
        if (r == -ENXIO)
            return error_invalid(error, "The key '%.40s' is of another type.", key);
        if (r >= 0)
            r = sd_bus_message_exit_container(m);
    }
    return r < 0 ? r : sd_bus_message_exit_container(m);
}

static bool is_wanted(const struct identity *identity, const struct filter *filter)
{
    return (!filter->vm || strcmp(filter->vm, identity->vm) == 0) &&
           (!filter->role || strcmp(filter->role, role_text(identity->role)) == 0) &&
           (!filter->state || strcmp(filter->state, state_text(identity->state)) == 0) &&
           (!filter->has_uid || filter->uid == identity->uid) &&
           (filter->running < 0 || filter->running == (identity->state != STATE_FINISHED));
}

static int append(struct bus *bus, sd_bus_message *reply, const struct identity *identity)
{
    char path[OBJECT_PATH_MAX];
    int r = sd_bus_message_open_container(reply, 'a', "{sv}");

    object_path(identity, path);
    if (r >= 0)
        r = sd_bus_message_append(reply, "{sv}", "Path", "o", path);
    for (size_t i = 0; r >= 0 && i < sizeof(properties) / sizeof(properties[0]); i++) {
        r = sd_bus_message_open_container(reply, 'e', "sv");
        if (r >= 0)
            r = sd_bus_message_append(reply, "s", properties[i].name);
        if (r >= 0)
            r = sd_bus_message_open_container(reply, 'v', properties[i].type);
        if (r >= 0)
            r = properties[i].get(bus->bus, path, MIGRATION_INTERFACE, properties[i].name, reply, bus, NULL);
        if (r >= 0)
            r = sd_bus_message_close_container(reply);
        if (r >= 0)
            r = sd_bus_message_close_container(reply);
    }
    return r < 0 ? r : sd_bus_message_close_container(reply);
}

int list_reply(struct bus *bus, sd_bus_message *m, sd_bus_error *error)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
    const struct entry *entry;
    struct filter filter;
    int r = read_filter(m, &filter, error);

    if (r >= 0)
        r = sd_bus_message_new_method_return(m, &reply);
    if (r >= 0)
        r = sd_bus_message_open_container(reply, 'a', "a{sv}");
    for (entry = registry_next(bus->registry, NULL); r >= 0 && entry;
         entry = registry_next(bus->registry, entry))
        if (is_wanted(&entry->identity, &filter))
            r = append(bus, reply, &entry->identity);
    if (r >= 0)
        r = sd_bus_message_close_container(reply);
    return r < 0 ? r : sd_bus_send(NULL, reply, NULL);
}
