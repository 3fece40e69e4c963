/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Connects in the name of a caller, who may have fewer rights than the broker. */

#include <sys/types.h>

#include "broker/config/config.h"

/* The path of a UNIX socket's endpoint; NULL for another one. */
const char *path_of_endpoint(const struct endpoint *endpoint);

/* As endpoint_connect(), but of UNIX sockets only to those that this uid may name (deputy.h). */
int connect_as(const struct config *config, uid_t uid, const struct endpoint *endpoint);
