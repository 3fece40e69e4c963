/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * How much work callers may make for the broker: before anything is done for a call, it is charged to the
 * connection and the user that it comes from. Root and the broker's own user are not charged. A call that is
 * beyond the limit gets LimitExceeded; one that wants no reply is dropped.
 *
 * The bus is asked once for the uid of each connection. Until it has answered, a connection has a few calls,
 * for root may need them; what is beyond these comes from one bucket for all such connections.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>
#include <systemd/sd-bus.h>

#include "broker/migration/registry.h"
#include "broker/rate.h"

enum {
    RATES_SENDERS =
        1024, /* that are remembered; beyond that the one that has not called for longest is forgotten */
    RATES_USERS = 256, /* the same */
    RATES_BUCKETS = 256,
};

struct rates_user {
    TAILQ_ENTRY(rates_user) next;
    uid_t uid;
    struct rate rate;
};

struct rates_sender;

struct rates {
    sd_bus *bus;                        /* borrowed */
    sd_event *event;                    /* borrowed */
    const struct registry *registry;    /* borrowed */
    TAILQ_HEAD(, rates_sender) senders; /* the one that has called last is last */
    LIST_HEAD(, rates_sender) buckets[RATES_BUCKETS];
    uint32_t n_senders;
    TAILQ_HEAD(, rates_user) users; /* the same */
    uint32_t n_users;
    struct rate unknown; /* of all connections whose uid is not known yet */
};

/* Charges the calls of this bus from now on. 0 or a negative errno. */
int rates_init(struct rates *rates, sd_bus *bus, sd_event *event, const struct registry *registry);
void rates_clear(struct rates *rates);

/* A client has left the bus. */
void rates_gone(struct rates *rates, const char *name);

/* Whether a call of this connection that makes so much work (1: a small one) is to be served. */
bool rates_admit(struct rates *rates, const char *sender, uint32_t work, uint64_t now);

/* What the bus has said of a connection. */
void rates_know(struct rates *rates, const char *sender, uid_t uid);
