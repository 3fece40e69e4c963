/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The broker as a whole: makes its objects, hands each what it stands on, and runs the loop. */

#include "broker/config/arguments.h"
#include "broker/config/config.h"
#include "broker/lifecycle.h"

struct manager;

/* Borrows config, which it replaces when it is told to read the files again, and arguments. 0, or a negative
 * errno after logging why. */
int manager_new(struct config *config, const struct arguments *arguments, struct manager **ret);

/* The helpers of active migrations go on without us. */
struct manager *manager_free(struct manager *manager);

/* Until SIGTERM or SIGINT: 0. Until it has nothing to do: EXIT_IDLE; 0 where there was something to do again
 * before its name was gone. Until the bus ends: another number above 0. Or a negative errno. */
int manager_run(struct manager *manager);
