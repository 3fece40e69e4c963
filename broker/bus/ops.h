/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <systemd/sd-bus.h>

/* What the bus's owner is asked for by calls that are about no migration. */
struct bus_ops {
    int (*reload)(void *userdata, sd_bus_error *error); /* reads the configuration again. ≥ 0, or negative */
};
