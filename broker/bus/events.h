/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "broker/migration/services.h"

/* What a migration tells upward becomes signals on the bus, and answers for those that wait. userdata: the
 * struct bus. */
extern const struct migration_events bus_events;
