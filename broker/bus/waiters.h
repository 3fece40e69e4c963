/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Clients that wait for a migration's result, and clients whose going ends one (tie-to-caller). */

#include <sys/queue.h>
#include <systemd/sd-bus.h>

#include "broker/migration/migration.h"
#include "broker/migration/registry.h"

#define WAITERS_MAX 64 /* Wait() calls on one migration at once */

struct tie;
struct waiter;

struct waiters {
    sd_bus *bus;                     /* borrowed */
    const struct registry *registry; /* borrowed */
    TAILQ_HEAD(, waiter) waiting;
    TAILQ_HEAD(, tie) asked; /* of whom the bus is asked whether they are still there */
};

void waiters_init(struct waiters *waiters, sd_bus *bus, const struct registry *registry);
void waiters_clear(struct waiters *waiters);

/* The call m waits until the migration is finished. ≥ 0, or negative with error set. */
int waiters_add(struct waiters *waiters, struct migration *migration, sd_bus_message *m, sd_bus_error *error);

/* Answers a call of Wait() with the result of a finished migration; and all that wait for it. */
void waiters_reply(const struct migration *migration, sd_bus_message *m);
void waiters_reply_all(struct waiters *waiters, const struct migration *migration);

/* A client has left the bus: it waits no more, and what is tied to it ends. */
void waiters_client_gone(struct waiters *waiters, const char *name);

/* After a start: asks the bus for the clients that migrations are tied to, for they may have left meanwhile.
 */
void waiters_check_ties(struct waiters *waiters);
