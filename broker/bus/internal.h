/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The broker's face on the bus: what its objects and methods share. */

#include <systemd/sd-bus.h>

#include "broker/bus/caller.h"
#include "broker/bus/ops.h"
#include "broker/bus/rates.h"
#include "broker/bus/waiters.h"
#include "broker/migration/services.h"

struct bus {
    sd_bus *bus;                               /* owned */
    const struct config *config;               /* borrowed */
    struct registry *registry;                 /* borrowed */
    const struct migration_services *services; /* borrowed */
    const struct bus_ops *ops;                 /* borrowed */
    void *userdata;                            /* borrowed; of the ops */
    struct rates rates;
    struct calls calls;
    struct waiters waiters;
};
