/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/bus/connection.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/bus/broker-object.h"
#include "broker/bus/internal.h"
#include "broker/bus/limit.h"
#include "broker/bus/migration-object.h"
#include "broker/bus/names.h"
#include "broker/log.h"

/* Clients that go: one match for all, for sd_bus_track(3) would ask the bus and wait. */
static int on_name_owner_changed(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct bus *bus = userdata;
    const char *name, *old, *new;

    if (sd_bus_message_read(m, "sss", &name, &old, &new) < 0 || name[0] != ':' || new[0] != '\0')
        return 0;
    rates_gone(&bus->rates, name);
    caller_gone(&bus->calls, name);
    waiters_client_gone(&bus->waiters, name);
    return 0;
}

static int connect_to(const struct config *config, sd_bus **ret)
{
    int r;

    if (config->bus == BUS_SYSTEM)
        return sd_bus_open_system(ret);
    if (config->bus == BUS_USER)
        return sd_bus_open_user(ret);
    r = sd_bus_new(ret);
    if (r >= 0)
        r = sd_bus_set_address(*ret, config->bus_address);
    if (r >= 0)
        r = sd_bus_set_bus_client(*ret, true);
    return r < 0 ? r : sd_bus_start(*ret);
}

static int put_objects(struct bus *bus)
{
    int r = sd_bus_match_signal(bus->bus, NULL, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                "org.freedesktop.DBus", "NameOwnerChanged", on_name_owner_changed, bus);

    if (r >= 0)
        r = broker_object_export(bus);
    if (r >= 0)
        r = migration_object_export(bus);
    if (r >= 0)
        r = limit_export(bus);
    /* The filter that is added last sees a call first. */
    return r < 0 ? r : rates_init(&bus->rates, bus->bus, bus->services->event, bus->registry);
}

static int set_up(struct bus *bus)
{
    const struct config *config = bus->config;
    int r = connect_to(config, &bus->bus);

    calls_init(&bus->calls, bus->bus, config, bus->registry, bus);
    waiters_init(&bus->waiters, bus->bus, bus->registry);
    if (r >= 0)
        r = sd_bus_set_exit_on_disconnect(bus->bus, true);
    if (r >= 0)
        r = sd_bus_set_close_on_exit(bus->bus, false); /* bus_close() does, and does not wait without end */
    if (r >= 0)
        r = sd_bus_attach_event(bus->bus, bus->services->event, SD_EVENT_PRIORITY_NORMAL);
    return r < 0 ? r : put_objects(bus);
}

int bus_new(const struct migration_services *services, const struct bus_ops *ops, void *userdata,
            struct bus **ret)
{
    const struct config *config = services->config;
    struct bus *bus = calloc(1, sizeof(*bus));
    int r;

    if (!bus)
        return -ENOMEM;
    *bus = (struct bus){.config = config,
                        .registry = services->registry,
                        .services = services,
                        .ops = ops,
                        .userdata = userdata};
    r = set_up(bus);
    if (r < 0) {
        log_start_failed("Cannot connect to the %s: %s.",
                         config->bus == BUS_SYSTEM ? "system bus"
                         : config->bus == BUS_USER ? "user's bus"
                                                   : "bus",
                         strerror(-r));
        /* The process ends. Where memory ran out while an object was exported, libsystemd (252) has left a
         * part of it behind, and would abort when the connection is freed. */
        if (r == -ENOMEM)
            bus->bus = NULL;
        bus_free(bus);
        return r;
    }
    *ret = bus;
    return 0;
}

int bus_take_name(struct bus *bus)
{
    int r = sd_bus_request_name(bus->bus, BUS_NAME, 0);

    if (r < 0)
        log_start_failed("Cannot have the name %s: %s%s.", BUS_NAME, strerror(-r),
                         r == -EEXIST ? " (another vmferryd has it)"
                         : r == -EACCES || r == -EPERM
                             ? " (the bus has not read vmferry's policy: systemctl reload dbus)"
                             : "");
    else
        waiters_check_ties(&bus->waiters);
    return r;
}

sd_bus *bus_connection(const struct bus *bus)
{
    return bus->bus;
}

bool bus_is_answering(const struct bus *bus)
{
    return bus->calls.n > 0;
}

void bus_drop_calls(struct bus *bus)
{
    caller_drop_all(&bus->calls);
    waiters_clear(&bus->waiters);
    rates_clear(&bus->rates);
}

static volatile sig_atomic_t closing = -1; /* the bus's socket */

static void on_alarm(int signal)
{
    shutdown(closing, SHUT_RDWR);
}

/* sd_bus_flush(3) waits until the bus has taken all: what wakes it is an end of the connection. */
void bus_close(struct bus *bus)
{
    const struct sigaction alarmed = {.sa_handler = on_alarm}, as_ever = {.sa_handler = SIG_DFL};

    closing = sd_bus_get_fd(bus->bus);
    if (closing >= 0 && sigaction(SIGALRM, &alarmed, NULL) >= 0) {
        alarm(BUS_CLOSE_MAX);
        if (sd_bus_flush(bus->bus) < 0 && alarm(0) == 0)
            log_event(LOG_WARNING, NULL, NULL,
                      "The bus has taken nothing for %d s: what it was to be told is dropped.",
                      BUS_CLOSE_MAX);
        alarm(0);
        sigaction(SIGALRM, &as_ever, NULL);
    }
    sd_bus_close(bus->bus);
}

struct bus *bus_free(struct bus *bus)
{
    if (!bus)
        return NULL;
    bus_drop_calls(bus);
    bus_close(bus);
    sd_bus_unref(bus->bus);
    free(bus);
    return NULL;
}
