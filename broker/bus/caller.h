/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Who calls, and whether that user may: the bus is asked for the uid behind a message's sender, and then,
 * where that is not enough, polkit. Neither ever blocks the loop. How many calls may wait for that at once is
 * bounded, per user and in all.
 */

#include <sys/queue.h>
#include <sys/types.h>
#include <systemd/sd-bus.h>

#include "broker/bus/authorize.h"
#include "broker/log-sample.h"

struct bus;
struct call;

struct calls {
    const struct config *config; /* borrowed, as the next two */
    const struct registry *registry;
    struct bus *userdata; /* of the calls */
    struct polkit polkit;
    TAILQ_HEAD(, call) waiting; /* until it is known who calls, and whether that user may */
    uint32_t n;
    uint32_t n_asked;          /* of those: that wait for polkit */
    struct log_samples denied; /* by uid */
};

void calls_init(struct calls *calls, sd_bus *bus, const struct config *config,
                const struct registry *registry, struct bus *userdata);

/*
 * A method's work, once it is known that the caller may have it done. As an sd_bus_message_handler_t: replies
 * and returns ≥ 0, or returns a negative errno or sets error and the caller gets that. Nothing that was
 * looked up before may be used.
 */
typedef int (*call_t)(struct bus *bus, sd_bus_message *m, uid_t uid, sd_bus_error *error);

/* Holds m until that is known, then runs call. As an sd_bus_message_handler_t. */
int caller_resolve(struct calls *calls, sd_bus_message *m, enum action action, call_t call,
                   sd_bus_error *error);

/* A client has left the bus: its calls are dropped. */
void caller_gone(struct calls *calls, const char *name);

/* Drops what still waits. */
void caller_drop_all(struct calls *calls);
