/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Whether the peer is there, and how far away it is: silence and pings on a control connection. */

#include <stdbool.h>
#include <stdint.h>

#include "helper/control/events.h"

/* Once a second. True when nothing has come for more than so many calls. */
bool heartbeat_is_silent(struct control *control, unsigned max);

/* Pings, unless an answer is still awaited, where it is due: always, or only now and then. now in µs,
 * CLOCK_MONOTONIC. */
void heartbeat_ping(struct control *control, bool always, uint64_t now);

/* Answers the peer's PING. */
void heartbeat_on_ping(struct control *control, uint64_t cookie);

/* The answer to ours: the round trip in µs; 0 where it answers none. */
uint64_t heartbeat_on_pong(struct control *control, uint64_t cookie);
