/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The directory below which the sockets are: one broker has it at a time. */

#include "broker/config/config.h"
#include "broker/migration/registry.h"

/* Makes it and locks it. The lock, the caller's: the directory is ours until it is closed; or a negative
 * errno after logging why. */
int runtime_dir_take(const char *path);

/* Removes what a broker that was killed left behind there, and no migration of ours goes on with. */
void runtime_dir_clean(const struct config *config, const struct registry *registry);
