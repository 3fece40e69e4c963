/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The a{sv} of PrepareIncoming and StartOutgoing: each key, its type, its range and where it may stand. */

#include <systemd/sd-bus.h>

#include "broker/config/config.h"
#include "broker/migration/options.h"

/*
 * Reads the a{sv} that comes next in m, and says what cannot be; config has the defaults. Looks no user up,
 * for that may take its time: it can be called before it is known who calls. ≥ 0, or negative with error set.
 * options_clear() in any case.
 */
int options_parse(sd_bus_message *m, enum message_role role, const struct config *config, struct options *ret,
                  sd_bus_error *error);

/*
 * Finds the user and group that 'socket-owner' names, or with a layout the user as whom libvirt runs QEMU. A
 * caller other than root and the broker's user can only name itself, by its number: for it nothing is looked
 * up, since the user database may take its time and the loop waits. ≥ 0, or negative with error set.
 */
int options_find_owner(const struct config *config, struct options *options, uid_t caller,
                       sd_bus_error *error);
