/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The relays whose bytes a worker moves instead of the first thread. A worker only moves bytes. What comes of
 * that (an acknowledgement that is due, an end, a connection that broke) it tells the first thread, which
 * decides. All functions are for the first thread.
 *
 * Lock order: a worker's lock, then the pool's. The first thread may hold one worker's lock at a time.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "helper/carrier/worker.h"
#include "helper/relay/relay.h"

/* Told in the first thread. */
struct crew_events {
    void (*settle)(void *userdata, size_t slot);   /* its relay has news */
    void (*owes_ack)(void *userdata, size_t slot); /* there is something to acknowledge, and nothing else */
};

struct crew;

/* Borrows all. 0 or a negative errno. */
int crew_new(sd_event *event, struct workers *workers, const struct crew_events *events, void *userdata,
             struct crew **ret);
/* The relays are their owner's, and no worker may have one any more. Safe on NULL. Returns NULL. */
struct crew *crew_free(struct crew *crew);

/* This relay has this slot from now on, and belongs to the first thread; borrows it. */
void crew_set_relay(struct crew *crew, size_t slot, struct relay *relay);

/*
 * Lends a relay, whose two connections are there, to the worker that has least to do. 1; 0 where there is
 * none, and nothing has changed; or a negative errno: it is the first thread's again, but that has to attach
 * both connections anew.
 */
int crew_give(struct crew *crew, size_t slot);

/* Takes it from its worker, with the lock held; its connections are gone, or nothing is waited for any more.
 */
void crew_take_back(struct crew *crew, size_t slot);

bool crew_has(const struct crew *crew, size_t slot);

/* Locks what the relay and its worker share; for worker_unlockp(). NULL: it is the first thread's. */
struct worker *crew_lock(const struct crew *crew, size_t slot);

/* Its worker polls this connection of the relay's, with the lock held. 0 or a negative errno. */
int crew_attach(struct crew *crew, size_t slot, struct carrier *carrier);

/* A timer of the first thread's will acknowledge what little is owed: workers need not say so. */
void crew_set_ack_timer(struct crew *crew, bool runs);

/* The peer has acknowledged so much of a relay that a worker has; does not wait for that. NULL, or why it
 * cannot be true. */
const char *crew_on_ack(struct crew *crew, size_t slot, uint64_t delivered);

/* Applies what was acknowledged and the worker has not heard of yet, with the lock held. The caller must
 * settle the channel afterwards. */
void crew_take_ack(struct crew *crew, size_t slot);
