/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <systemd/sd-bus.h>

#include "broker/bus/ops.h"
#include "broker/migration/services.h"

struct bus;

/* Connects to the bus and puts the objects there; no client looks for them before bus_take_name(). Borrows
 * services, ops and userdata. 0, or a negative errno after logging why. */
int bus_new(const struct migration_services *services, const struct bus_ops *ops, void *userdata,
            struct bus **ret);

/* From here on clients find the broker, and what it has taken over. The same. */
int bus_take_name(struct bus *bus);

/* Borrowed. */
sd_bus *bus_connection(const struct bus *bus);

/* Whether calls wait for their answers, but for those of Wait(). */
bool bus_is_answering(const struct bus *bus);

/* Drops all that waits, while there still are migrations; */
void bus_drop_calls(struct bus *bus);

/* the connection, at once or, where the bus takes nothing, after some seconds: what it was to be told is
 * dropped then; */
enum { BUS_CLOSE_MAX = 2 /* s */ };
void bus_close(struct bus *bus);

/* and all that is left. */
struct bus *bus_free(struct bus *bus);
