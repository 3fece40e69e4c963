/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stddef.h>
#include <sys/un.h>

#include "ctl/arguments.h"

/* Connects to the D-Bus that the options name, without a word of D-Bus. An FD, or -1 with a trouble. */
int bus_socket_connect(const struct arguments *arguments, struct trouble *trouble);

/* Pure: the first UNIX socket of a D-Bus address ("unix:path=/run/bus,guid=…;…"). False where there is none.
 */
bool bus_address_parse(const char *address, struct sockaddr_un *ret, socklen_t *ret_size);

/* Pure: whether it is the address of one UNIX socket and nothing else: "unix:path=…" or "unix:abstract=…",
 * maybe with a guid. Another transport can start a program ("unixexec:"). */
bool bus_address_is_socket(const char *address);
