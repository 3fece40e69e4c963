/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The a{sv} of PrepareIncoming and StartOutgoing: each key, its type, its range and where it may stand. */

#include <stdbool.h>
#include <systemd/sd-bus.h>

#include "broker/config/config.h"
#include "broker/migration/options.h"

/* Reads the a{sv} that comes next in m; config has the defaults. ≥ 0, or negative with error set.
 * options_clear() in any case. */
int options_read(sd_bus_message *m, enum message_role role, const struct config *config, struct options *ret,
                 sd_bus_error *error);

/*
 * Only whether it is in range, before anybody knows who calls: what is held until then is small, and no user
 * is looked up, which may take its time. ≥ 0, or negative with error set.
 */
int options_check(sd_bus_message *m, enum message_role role, const struct config *config,
                  sd_bus_error *error);

/* Only 'endpoint' of the a{sv} that comes next in m: in *ret, which stays where there is none. ≥ 0 or a
 * negative errno. */
int options_peek_endpoint(sd_bus_message *m, const char **ret);
