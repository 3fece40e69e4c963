/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The list of migrations that can grow: a dictionary for each. */

#include "broker/bus/internal.h"

/* Replies to List(a{sv}) with those that the filter lets through. As an sd_bus_message_handler_t, but with
 * the struct bus. */
int list_reply(struct bus *bus, sd_bus_message *m, sd_bus_error *error);
