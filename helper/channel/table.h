/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The slots of the table of channels. */

#include "helper/channel/internal.h"

/* Tells the session that this is the end. */
void channels_fail(struct channels *channels, enum vf_error error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The one of this number that lives, or NULL. */
struct channel *channel_find(struct channels *channels, uint32_t number);

/* A new channel in a free slot; NULL with the limit reached or without memory. */
struct channel *channel_new(struct channels *channels, uint32_t number, uint32_t stream);

/* The only way to another stage; refuses what cannot be. */
void channel_set_stage(struct channel *channel, enum channel_stage stage);

/* Closes its connections; it is proved or given up. */
void channel_close(struct channel *channel);
