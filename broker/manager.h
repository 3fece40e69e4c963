/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The broker as a whole: its bus, its migrations and the peer port. manager-dbus.c is its face on the bus. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "broker/config/config.h"
#include "broker/errors.h"
#include "broker/helpers/link.h"
#include "broker/lifecycle.h"
#include "broker/migration/arrivals.h"
#include "broker/sockets/give.h"
#include "common/message.h"

#define BUS_NAME            "org.vmferry.Broker1"
#define BROKER_PATH         "/org/vmferry/Broker1"
#define BROKER_INTERFACE    "org.vmferry.Broker1"
#define MIGRATION_INTERFACE "org.vmferry.Migration1"

#define MANAGER_BUCKETS 1024

struct call;
struct migration;
struct port;
struct store;

struct manager {
    const struct config *config; /* borrowed */
    sd_event *event;             /* owned */
    sd_bus *bus;                 /* owned */
    struct port *port;           /* owned */
    struct store *store;         /* owned */
    int lock;                    /* owned: held for as long as the runtime directory is ours */
    struct helper_links helpers;
    struct give give;
    struct arrivals arrivals;
    struct lifecycle lifecycle;
    TAILQ_HEAD(migrations, migration) migrations;    /* the oldest first */
    LIST_HEAD(, migration) buckets[MANAGER_BUCKETS]; /* the same by id: each call on the bus looks for one */
    uint32_t n_running;
    uint32_t n_finished;
    TAILQ_HEAD(, call) calls; /* waiting until it is known who calls, and whether he may */
    uint32_t n_calls;
    uint32_t n_asked;     /* of those: that wait for polkit */
    uint64_t n_questions; /* to polkit, so that each has a name of its own */
    uint32_t n_denied;    /* for the log */
};

/* 0, or a negative errno after logging why. */
int manager_new(const struct config *config, struct manager **ret);

/* The helpers of active migrations go on without us. */
struct manager *manager_free(struct manager *manager);

/* Until SIGTERM or SIGINT: 0. Until nobody needs it: EXIT_IDLE; 0 where somebody did again before its name
 * was gone. Until the bus ends: another number above 0. Or a negative errno. */
int manager_run(struct manager *manager);

/* A migration that runs is the manager's until manager_remove(). */
void manager_add(struct manager *manager, struct migration *migration);
void manager_remove(struct manager *manager, struct migration *migration);

/* NULL when there is none. */
struct migration *manager_find(struct manager *manager, enum message_role role, uint64_t id);
struct migration *manager_find_path(struct manager *manager, const char *path);

/*
 * Whether this caller may make one more migration for this VM: NULL, or error is set and what it says is
 * negative. Also forgets the oldest finished ones where too many are kept.
 */
int manager_admit(struct manager *manager, enum message_role role, const char *vm, uid_t uid,
                  sd_bus_error *error);

/*
 * manager-dbus.c: reads the VM and (for ROLE_OUTGOING) the ticket, with which a call of PrepareIncoming or
 * StartOutgoing begins. ≥ 0, or negative with error set.
 */
int manager_read_call(sd_bus_message *m, enum message_role role, const char **ret_vm, const char **ret_ticket,
                      sd_bus_error *error);

/* manager-dbus.c: adds the interface; 0 or a negative errno. */
int manager_export(struct manager *manager);
