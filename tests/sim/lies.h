/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "common/message.h"

/* Frames and messages that are well formed and not true, from a peer and from a broker, in any order. What
 * they may not do: crash a helper, hang it, leave something behind, make it say to its broker what it may
 * not. */

/* The message with which a helper begins. */
void lie_at_start(struct message_start_relay *start);

/* One, where the plan has some left. */
void maybe_lie(void);
