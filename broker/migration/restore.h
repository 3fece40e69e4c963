/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "broker/migration/services.h"

/* Makes all migrations again that the FD store holds. What is left over there belongs to none, and is
 * dropped. */
void migration_restore_all(const struct migration_services *services);
