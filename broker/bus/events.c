/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/bus/events.h"

#include "broker/bus/internal.h"
#include "broker/bus/names.h"

/* Signals are a courtesy: what counts is in the properties. So no error is looked at here. */

static void emit_active_migrations(struct bus *bus)
{
    sd_bus_emit_properties_changed(bus->bus, BROKER_PATH, BROKER_INTERFACE, "ActiveMigrations", NULL);
}

static void on_made(void *userdata, const struct migration *migration)
{
    struct bus *bus = userdata;
    char path[OBJECT_PATH_MAX];

    object_path(migration_identity(migration), path);
    sd_bus_emit_object_added(bus->bus, path);
    sd_bus_emit_signal(bus->bus, BROKER_PATH, BROKER_INTERFACE, "MigrationNew", "o", path);
    emit_active_migrations(bus);
}

static void on_changed(void *userdata, const struct migration *migration, unsigned what)
{
    static const struct {
        unsigned what;
        const char *property;
    } properties[] = {
        {CHANGE_STATE, "State"},
        {CHANGE_RESULT, "Result"},
        {CHANGE_STATE, "ErrorName"},
        {CHANGE_STATE, "ErrorMessage"},
        {CHANGE_PEER, "Peer"},
        {CHANGE_UNIT, "HelperUnit"},
        {CHANGE_LIMIT, "BandwidthLimit"},
        {CHANGE_RESULT, "FinishedUsec"},
        {CHANGE_STATE, "Reconnects"},
        {CHANGE_STATE, "GivesUpUsec"},
        {CHANGE_OUTCOME, "Outcome"},
        {CHANGE_PROGRESS, "Phase"},
        {CHANGE_PROGRESS | CHANGE_OUTCOME | CHANGE_RESULT, "Progress"},
        {CHANGE_PROGRESS | CHANGE_OUTCOME | CHANGE_RESULT, "RemainingUsec"},
        {CHANGE_PROGRESS | CHANGE_OUTCOME, "Details"},
    };
    enum { N_PROPERTIES = sizeof(properties) / sizeof(properties[0]) };
    const char *names[N_PROPERTIES + 1];
    union {
        const char **from;
        char **to;
    } strv = {names}; /* sd-bus writes nothing to it */
    struct bus *bus = userdata;
    char path[OBJECT_PATH_MAX];
    size_t n = 0;

    for (size_t i = 0; i < N_PROPERTIES; i++)
        if (properties[i].what & what)
            names[n++] = properties[i].property;
    names[n] = NULL;
    object_path(migration_identity(migration), path);
    sd_bus_emit_properties_changed_strv(bus->bus, path, MIGRATION_INTERFACE, strv.to);
}

static void on_finished(void *userdata, struct migration *migration)
{
    struct bus *bus = userdata;

    waiters_reply_all(&bus->waiters, migration);
    emit_active_migrations(bus);
}

static void on_removed(void *userdata, const struct migration *migration)
{
    struct bus *bus = userdata;
    char path[OBJECT_PATH_MAX];

    object_path(migration_identity(migration), path);
    sd_bus_emit_object_removed(bus->bus, path);
    sd_bus_emit_signal(bus->bus, BROKER_PATH, BROKER_INTERFACE, "MigrationRemoved", "os", path,
                       vf_result_to_string(migration_status(migration)->result));
}

const struct migration_events bus_events = {
    .made = on_made,
    .changed = on_changed,
    .finished = on_finished,
    .removed = on_removed,
};
