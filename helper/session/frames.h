/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The control connection: how it begins, and what comes on it. */

#include "helper/session/internal.h"

/* Takes a control connection that has proved itself: the first, or one that takes its place. */
void session_adopt(struct session *session, struct carrier *carrier);

void session_on_frame(struct session *session, const struct frame *frame);
