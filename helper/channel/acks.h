/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What this side acknowledges: much at once, little together with what comes in the next moments. */

#include "helper/channel/internal.h"

/* Sends the acknowledgement of all that was delivered, in any case; or where it was not told yet. */
void channel_ack(struct channel *channel);
void channel_ack_owed(struct channel *channel);

/* The same for much; for little it sees to it that it is sent in time. */
void channel_ack_in_time(struct channel *channel);
