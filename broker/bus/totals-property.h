/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The broker's property Totals. */

#include <systemd/sd-bus.h>

#include "broker/migration/services.h"

int totals_property_append(sd_bus_message *reply, const struct migration_services *services);
