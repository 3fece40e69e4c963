/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Who calls, and whether he may: the bus is asked for the uid behind a message's sender, and then, where that
 * is not enough, polkit. Neither ever blocks the loop. How many calls may wait for that at once is bounded,
 * per user and in all.
 */

#include <sys/types.h>
#include <systemd/sd-bus.h>

#include "broker/bus/authorize.h"

struct manager;

/*
 * A method's work, once it is known that the caller may have it done. As an sd_bus_message_handler_t: replies
 * and returns ≥ 0, or returns a negative errno or sets error and the caller gets that. Nothing that was
 * looked up before may be used.
 */
typedef int (*call_t)(struct manager *manager, sd_bus_message *m, uid_t uid, sd_bus_error *error);

/* Holds m until that is known, then runs call. As an sd_bus_message_handler_t. */
int caller_resolve(struct manager *manager, sd_bus_message *m, enum action action, call_t call,
                   sd_bus_error *error);

/* A client has gone from the bus: nothing is done for him any more. */
void caller_gone(struct manager *manager, const char *name);

/* Drops what still waits. */
void caller_drop_all(struct manager *manager);
