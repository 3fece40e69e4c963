/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ctl/bus/tunnel.h"

/* Asks the broker for a connection of the stream "migrate" (OpenStream). Returns a blocking FD, the caller's,
 * or -1 with a trouble. */
int stream_open(const struct tunnel *tunnel, struct trouble *trouble);

/* Reads until the end, and drops what it reads. Borrows fd. */
void stream_drain(int fd);
