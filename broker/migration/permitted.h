/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Which options a caller may give that is neither root nor the broker's own user. */

#include <sys/types.h>
#include <systemd/sd-bus.h>

#include "broker/config/config.h"
#include "broker/migration/options.h"

/* socket-owner and sockets. ≥ 0, or negative with error set. */
int permitted_options(const struct config *config, uid_t uid, const struct options *options,
                      sd_bus_error *error);

/* Whether one of the endpoints that are to be dialled may be. ≥ 0, or negative with error set. */
int permitted_endpoints(const struct config *config, uid_t uid, const struct options *options,
                        sd_bus_error *error);
