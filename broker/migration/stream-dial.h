/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* An incoming migration's connections to its QEMU; and, for both roles, those that are brought instead. */

#include "broker/migration/stream.h"

/* Connects to QEMU for this channel, with retries until the deadline; the helper is sent the outcome. */
void stream_connect(struct stream *stream, uint32_t channel);

/*
 * A connection to QEMU that is there already; takes fd, on failure too. ours: no other process holds it. It
 * goes to the helper, or waits until a channel needs it. ≥ 0, or negative with error set.
 */
int stream_supply(struct stream *stream, int fd, bool ours, sd_bus_error *error);

/* After a start: the socket that was connecting for this channel, or is connected. Takes fd. */
void stream_restore_dial(struct stream *stream, int fd, uint32_t channel);

/* Gives up the socket that was to be connected. */
void stream_drop_dial(struct stream *stream);
