/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* All QEMU sockets of one migration. */

#include "broker/migration/stream.h"

/* With nothing open. Borrows all but the owner. */
void streams_init(struct streams *streams, const struct migration_services *services, struct entry *entry,
                  const struct options *options, struct helper_side *helper,
                  const struct socket_owner *owner);

/*
 * Their paths, with a directory of their own where the caller gave none; an outgoing migration listens on
 * them. ≥ 0, or negative with error set: streams_close() then removes what was made.
 */
int streams_open(struct streams *streams, sd_bus_error *error);

/* The listeners go to the FD store. */
void streams_store(const struct streams *streams);

/* After a start: the listeners come from there, */
void streams_restore(struct streams *streams);

/* and one other descriptor: what is the end of its name ("sock.0.1"). Returns whether it is a stream's;
 * *ret_fd is a borrowed socket that callers gave, or −1. */
bool streams_restore_one(struct streams *streams, const char *name, const char *what, int *ret_fd);

/* Closes all, and removes what was made; but leaves it where the broker after this one goes on with it. */
void streams_close(struct streams *streams);
