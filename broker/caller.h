/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Who calls: the uid behind a message's sender, asked of the bus without ever blocking the loop. How many
 * calls may wait for that at once is bounded.
 */

#include <sys/types.h>
#include <systemd/sd-bus.h>

struct manager;

/*
 * A method's work, once the uid is known. As an sd_bus_message_handler_t: replies and returns ≥ 0, or returns
 * a negative errno or sets error and the caller gets that. Nothing that was looked up before may be used.
 */
typedef int (*call_t)(struct manager *manager, sd_bus_message *m, uid_t uid, sd_bus_error *error);

/* Holds m until the uid is there, then runs call. As an sd_bus_message_handler_t. */
int caller_resolve(struct manager *manager, sd_bus_message *m, call_t call, sd_bus_error *error);

/* Drops what still waits. */
void caller_drop_all(struct manager *manager);
