/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Once a second: takes the rate, drops peer connections that did not prove themselves in time, checks that
 * the peer is alive. The source pings, and the destination does its part when a ping has come, since a
 * migration that idles should wake its helpers rarely: there may be very many. A destination that misses the
 * pings does its part, and pings, by itself.
 */

#include "helper/session/internal.h"

/* 0 or a negative errno. */
int session_start_ticks(struct session *session);

/* The peer's PING has come. */
void session_tick_by_ping(struct session *session);
