/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Sockets that a caller of the broker supplied, and that no channel needs yet. The helper only holds them,
 * for it outlives the broker: which of them answers a request is the broker's word, and a new broker is told
 * of all that there are.
 */

#include <stdbool.h>

#include "helper/link.h"

struct kept_socket {
    struct message_keep is; /* as the broker said */
    int fd;                 /* the taker's */
};

struct kept;

/* NULL without memory. */
struct kept *kept_new(void);
struct kept *kept_free(struct kept *kept);

/* Takes fd. Without memory it is closed, and its USE finds none. */
void kept_put(struct kept *kept, const struct message_keep *m, int fd);

/* False: there is none of this number. */
bool kept_take(struct kept *kept, uint64_t number, struct kept_socket *ret);

/* To a new broker, the oldest first. */
void kept_tell(const struct kept *kept, struct link *link);
