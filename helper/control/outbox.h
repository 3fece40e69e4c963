/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The frames that go out on a control connection. */

#include "helper/control/events.h"

/* Sends it, or drops it where there is no connection. It may tell events.lost(). */
void control_send(struct control *control, const struct frame *frame);

/* Only puts it behind what waits: control_linger() sends it. */
void control_leave_word(struct control *control, const struct frame *frame);

/* In between, frames wait for each other, so that one system call sends them. */
void control_cork(struct control *control);
void control_uncork(struct control *control);
