/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The pipes that a helper splices the bytes of a channel through, in `plain` and where the kernel does the
 * TLS; it can make none itself. Where there is none, for a user's pipes are limited (pipe(7)), it copies. A
 * channel whose QEMU sockets others hold too is given none.
 */

#include "broker/migration/stream.h"

/* For the next connection of the source's QEMU: one to splice through, and those that keep what is sent. */
void pipes_give_source(struct streams *streams);

/* For this channel of the destination. */
void pipes_give_destination(struct streams *streams, uint32_t channel);
