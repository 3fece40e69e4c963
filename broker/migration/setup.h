/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How a migration comes to be. */

#include <systemd/sd-bus.h>

#include "broker/migration/identity.h"
#include "broker/migration/options.h"
#include "broker/migration/services.h"

/*
 * PrepareIncoming: makes the migration with its sockets, its helper and its ticket, opens the port. Takes
 * what options hold, and leaves them empty; where it fails early they are as before, so options_clear() is
 * the caller's in any case. ≥ 0: *ret is borrowed, and stays in the registry until it is forgotten. Negative
 * with error set: then nothing is left.
 */
int migration_prepare(const struct migration_services *services, const char *vm, struct options *options,
                      uid_t uid, struct migration **ret, sd_bus_error *error);

/* StartOutgoing: the same from the ticket; dials. */
int migration_start(const struct migration_services *services, const char *vm, const char *ticket,
                    struct options *options, uid_t uid, struct migration **ret, sd_bus_error *error);

/* For restore.c: one with nothing in it but its names, in the registry; migration_free() removes it. Takes
 * what options hold, but not where it fails. 0 or a negative errno. */
int migration_new(const struct migration_services *services, enum message_role role, uint64_t id,
                  uint32_t number, const char *vm, struct options *options, uid_t uid,
                  struct migration **ret);
