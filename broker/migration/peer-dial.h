/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The connections to the peer that an outgoing migration's helper asks for: those that callers brought
 * (AddPeerConnection) go first; then, where there is an endpoint, it is dialled. */

#include "broker/migration/helper-side.h"
#include "broker/migration/options.h"
#include "broker/migration/queue.h"
#include "broker/migration/registry.h"
#include "broker/migration/services.h"

enum { PEER_TRIED_MAX = 64 };

struct peer_dial;

/* Of a connection that was asked for: the endpoints that it has been had by, bits. Asked for again, it is to
 * be had by another one. */
struct peer_tried {
    uint32_t serial; /* 0: none */
    uint32_t endpoints;
};

struct peer_dials {
    const struct migration_services *services; /* borrowed, as the next three */
    struct entry *entry;
    const struct options *options;
    struct helper_side *helper;
    struct queue brought;
    TAILQ_HEAD(, peer_dial) dials; /* asked for, and not had yet */
    uint32_t n_dials;
    struct peer_tried tried[PEER_TRIED_MAX]; /* the last ones */
    size_t n_tried;
    size_t answered; /* the endpoint of the last control connection, and the one that has proved to be the */
    size_t worked;   /* peer's, which is dialled first; from 1 on, 0: none */
};

/* With nothing asked for. Borrows all. */
void peer_dials_init(struct peer_dials *dials, const struct migration_services *services, struct entry *entry,
                     const struct options *options, struct helper_side *helper);

/* The helper gets the connection, or the reason why there is none. */
void peer_dials_ask(struct peer_dials *dials, const struct message_need_peer *m);

/* A control connection has proved itself: the endpoint that it was had by is the peer's. */
void peer_dials_proved(struct peer_dials *dials);

/* One that a caller brought; takes fd, on failure too. 0, or -ENOBUFS when too many wait. */
int peer_dials_bring(struct peer_dials *dials, int fd);

/* Closes what waits, and dials no more. */
void peer_dials_clear(struct peer_dials *dials);
