/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How a migration comes to be. */

#include <systemd/sd-bus.h>

#include "broker/migration/identity.h"
#include "broker/migration/options.h"
#include "broker/migration/services.h"

/*
 * PrepareIncoming: makes the migration with its sockets, its helper and its ticket, opens the port. Takes
 * what options hold. ≥ 0, or negative with error set: then nothing is left.
 */
int migration_prepare(const struct migration_services *services, const char *vm, struct options *options,
                      uid_t uid, struct migration **ret, sd_bus_error *error);

/* StartOutgoing: the same from the ticket; dials. */
int migration_start(const struct migration_services *services, const char *vm, const char *ticket,
                    struct options *options, uid_t uid, struct migration **ret, sd_bus_error *error);

/* For restore.c: one with nothing in it but its names; takes what options hold. 0 or a negative errno. */
int migration_new(const struct migration_services *services, enum message_role role, uint64_t id,
                  uint32_t number, const char *vm, struct options *options, uid_t uid,
                  struct migration **ret);
