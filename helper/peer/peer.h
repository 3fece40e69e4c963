/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One candidate. */

#include "helper/peer/internal.h"

/* Begins with this socket, which it takes. 0 or a negative errno: then fail it. */
int peer_begin(struct peer *peer, int fd);

/* Goes as far as it goes now, and waits for what comes next. It may be free afterwards. */
void peer_drive(struct peer *peer);

/* Waits for what comes next. */
void peer_watch(struct peer *peer);

/* Its OPEN has come. False where the connection came to nothing. */
bool peer_unpark(struct peer *peer);

/* Ends it with this negative errno. */
void peer_fail(struct peer *peer, int error);

/* Frees it. Safe on an unused one. */
void peer_clear(struct peer *peer);
