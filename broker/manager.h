/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The broker as a whole: its bus, its migrations and the peer port. manager-dbus.c is its face on the bus. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "common/message.h"
#include "config.h"
#include "errors.h"
#include "helper-link.h"

#define BUS_NAME            "org.vmferry.Broker1"
#define BROKER_PATH         "/org/vmferry/Broker1"
#define BROKER_INTERFACE    "org.vmferry.Broker1"
#define MIGRATION_INTERFACE "org.vmferry.Migration1"

struct call;
struct migration;
struct port;

struct manager {
    const struct config *config; /* borrowed */
    sd_event *event;             /* owned */
    sd_bus *bus;                 /* owned */
    struct port *port;           /* owned */
    int lock;                    /* owned: held for as long as the runtime directory is ours */
    struct helper_links helpers;
    TAILQ_HEAD(migrations, migration) migrations; /* the oldest first */
    uint32_t n_running;
    uint32_t n_finished;
    TAILQ_HEAD(, call) calls; /* waiting for their caller's uid */
    uint32_t n_calls;
};

/* 0, or a negative errno after logging why. */
int manager_new(const struct config *config, struct manager **ret);

/* The helpers of active migrations go on without us. */
struct manager *manager_free(struct manager *manager);

/* Until SIGTERM or SIGINT: 0. Until the bus ends: above 0. Or a negative errno. */
int manager_run(struct manager *manager);

/* NULL when there is none. */
struct migration *manager_find(struct manager *manager, enum message_role role, uint64_t id);
struct migration *manager_find_path(struct manager *manager, const char *path);

/*
 * Whether this caller may make one more migration for this VM: NULL, or error is set and what it says is
 * negative. Also forgets the oldest finished ones where too many are kept.
 */
int manager_admit(struct manager *manager, enum message_role role, const char *vm, uid_t uid,
                  sd_bus_error *error);

/* Root, and the user whose broker this is. Everybody else is denied, with error set. */
int manager_authorize_new(struct manager *manager, uid_t uid, sd_bus_error *error);

/* Those, and the migration's owner. */
int manager_authorize(struct migration *migration, uid_t uid, sd_bus_error *error);

/* manager-dbus.c: adds the interface; 0 or a negative errno. */
int manager_export(struct manager *manager);
