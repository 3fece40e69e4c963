/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The control connection: how it begins, and what comes on it. */

#include "helper/session/internal.h"

/* For struct peer_events: takes a control connection that has proved itself: the first, or one in its place.
 */
void session_on_proved(void *userdata, enum peer_kind kind, struct carrier *carrier);

/* For struct control_events. */
void session_on_frame(void *userdata, const struct frame *frame);
