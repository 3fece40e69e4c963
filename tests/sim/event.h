/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The event loops that sd-event(3)'s functions make here. */

#include <systemd/sd-event.h>

#include "sim.h"

/* Runs one source that is due, any of them; false when none is. */
bool event_turn(sd_event *event);

/* How many sources are due. */
unsigned event_due(sd_event *event);

/* When the next of its timers is; NEVER without one. */
uint64_t event_next(const sd_event *event);

/* sd_event_exit() was called. */
bool event_exits(const sd_event *event);

/* Sources that there are. */
unsigned event_count(const sd_event *event);
