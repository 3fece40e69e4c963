/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The pipe that a destination's helper splices the bytes of a channel to QEMU through, in `plain`; it can
 * make none itself. Without one, for a user's pipes are limited (pipe(7)), it copies. A channel whose QEMU
 * socket others hold too is given none.
 */

#include "broker/migration/stream.h"

/* For this channel of a destination. */
void pipes_give(struct streams *streams, uint32_t channel);
