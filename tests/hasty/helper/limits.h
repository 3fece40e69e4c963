/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The limits of a helper that lives four times as fast: tests wait for its times to pass. It is never
 * installed. */

#include "../../../helper/limits.h"

#undef PEER_DEADLINE
#undef TRIP
#undef TICK
#undef TICK_GRACE
#undef LINGER
#undef REDIAL_FIRST
#undef REDIAL_MAX

#define HASTE 4

#define PEER_DEADLINE (10000000 / HASTE)
#define TRIP          (10000000 / HASTE)
#define TICK          (1000000 / HASTE)
#define TICK_GRACE    (250000 / HASTE)
#define LINGER        (2000000 / HASTE)
#define REDIAL_FIRST  (200000 / HASTE)
#define REDIAL_MAX    (5000000 / HASTE)
