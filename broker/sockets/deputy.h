/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The broker is root and does things in the name of callers who are not. So what such a caller names is used
 * only as he could use it himself: paths below the allowed directories, in a directory that is his, to
 * sockets that are his and that he listens on; sockets for nobody but himself.
 */

#include <systemd/sd-bus.h>

#include "broker/bus/options.h"
#include "broker/config/config.h"
#include "broker/sockets/qemu-socket.h"

/*
 * What a path that this caller named may lead to. Above 0: whatever, he is not restricted. 0: what *ret says.
 * −EOUTSIDE: nothing, the path is in none of the allowed directories.
 */
int deputy_scope(const struct config *config, uid_t uid, const char *path, struct socket_scope *ret);

/* Why a path was not used; a sentence (static), or NULL where the errno has nothing to do with the rules. */
const char *deputy_why(int r);

/* What he may not ask for: socket-owner, sockets, endpoint. ≥ 0, or negative with error set. */
int deputy_check(const struct config *config, uid_t uid, const struct options *options, sd_bus_error *error);

/* Whether one of the endpoints that he wants to have dialled may be. ≥ 0, or negative with error set. */
int deputy_check_endpoints(const struct config *config, uid_t uid, const struct options *options,
                           sd_bus_error *error);

/* Connects to the UNIX socket of an endpoint for him, as endpoint_connect(). */
int deputy_connect(const struct config *config, uid_t uid, const struct endpoint *endpoint);
