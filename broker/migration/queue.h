/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Sockets that were supplied and wait to be needed, the oldest first. Each counts as waiting in its
 * migration's entry. They are other processes' open files, so the service manager gets none of them
 * (release.h): a broker that ends closes them, and they must be supplied again.
 */

#include "broker/migration/registry.h"

#define QUEUE_MAX 64 /* sockets that no channel has taken yet: of a stream, and connections to the peer */

/* For people, of what has none any more. */
#define SUPPLY_AGAIN "Those that waited when vmferryd was started again were closed: bring them anew."

struct queue {
    struct entry *entry; /* borrowed */
    size_t n;
    struct {
        int fd;    /* owned */
        bool ours; /* no other process holds it, so that its flags stay as they are */
    } waiting[QUEUE_MAX];
};

void queue_init(struct queue *queue, struct entry *entry);

/* Takes fd. −ENOBUFS when the queue is full. */
int queue_put(struct queue *queue, int fd, bool ours);

/* The oldest, the caller's; −1 when there is none. ret_ours may be NULL. */
int queue_take(struct queue *queue, bool *ret_ours);

void queue_clear(struct queue *queue);
