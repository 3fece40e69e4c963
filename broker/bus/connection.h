/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "broker/bus/bus.h"

/* Connects to the bus and puts the objects there, which nobody looks for before bus_take_name(). Borrows all.
 * 0, or a negative errno after logging why; bus_close() in any case. */
int bus_open(struct bus *bus, const struct migration_services *services);

/* From here on clients find the broker, and what it has taken over. The same. */
int bus_take_name(struct bus *bus);

/* Drops the calls that wait, and those that wait for a result; */
void bus_drop_calls(struct bus *bus);

/* and the connection. */
void bus_close(struct bus *bus);
