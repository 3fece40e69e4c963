/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the peer says of channels. */

#include "helper/channel/events.h"
#include "helper/protocol/frame.h"

/* A frame that is about a channel. NULL, or what of it cannot be true. */
const char *channels_on_frame(struct channels *channels, const struct frame *frame);
