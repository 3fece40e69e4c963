/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The connections to the peer that an outgoing migration's helper asks for: those that callers brought
 * (AddPeerConnection) go first; then, where there is an endpoint, it is dialled. */

#include "broker/migration/helper-side.h"
#include "broker/migration/options.h"
#include "broker/migration/queue.h"
#include "broker/migration/registry.h"
#include "broker/migration/services.h"

struct peer_dial;

struct peer_dials {
    const struct migration_services *services; /* borrowed, as the next three */
    struct entry *entry;
    const struct options *options;
    struct helper_side *helper;
    struct queue brought;
    TAILQ_HEAD(, peer_dial) dials; /* asked for, and not had yet */
    uint32_t n_dials;
};

void peer_dials_init(struct peer_dials *dials, const struct migration_services *services, struct entry *entry,
                     const struct options *options, struct helper_side *helper);

/* The helper gets the connection, or the reason why there is none. */
void peer_dials_ask(struct peer_dials *dials, const struct message_need_peer *m);

/* One that a caller brought; takes fd. −ENOBUFS when too many wait. */
int peer_dials_bring(struct peer_dials *dials, int fd);

/* Closes what waits, and dials no more. */
void peer_dials_clear(struct peer_dials *dials);
