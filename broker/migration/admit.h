/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Whether there may be one more migration. */

#include <systemd/sd-bus.h>

#include "broker/migration/registry.h"
#include "broker/migration/services.h"

/*
 * Whether this caller may make one more migration for this VM: ≥ 0, or negative with error set. Also forgets
 * finished ones where too many are kept.
 */
int admit_new(struct registry *registry, const struct config *config, enum message_role role, const char *vm,
              uid_t uid, sd_bus_error *error);

/* The caller's own migration of this client-id; NULL when there is none. */
struct migration *admit_find_client_id(const struct registry *registry, enum message_role role,
                                       const char *client_id, uid_t uid);

/* Room in the store for one more; the oldest finished ones pay. ≥ 0, or negative with error set. */
int admit_make_room(struct registry *registry, struct store *store, uint32_t n_streams, sd_bus_error *error);
