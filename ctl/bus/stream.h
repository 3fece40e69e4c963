/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ctl/bus/tunnel.h"

/* A connection of the migration's stream "migrate" (OpenStream). The FD, blocking, or -1 with a trouble. */
int stream_open(const struct tunnel *tunnel, struct trouble *trouble);

/* Reads until the end, and throws it away. */
void stream_drain(int fd);
