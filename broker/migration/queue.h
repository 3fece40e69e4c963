/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Sockets that were supplied and wait to be needed, the oldest first. Each stands in the FD store under a
 * name of its own, and counts as waiting in its migration's entry. */

#include "broker/migration/registry.h"
#include "broker/migration/services.h"

#define QUEUE_MAX 64 /* sockets that no channel has taken yet: of a stream, and connections to the peer */

enum { QUEUE_OF_PEERS = -1 };

struct queue {
    const struct migration_services *services; /* borrowed */
    struct entry *entry;                       /* borrowed */
    int stream;                                /* or QUEUE_OF_PEERS */
    uint32_t last;                             /* number in the store */
    size_t n;
    struct {
        int fd;    /* owned */
        bool ours; /* no other process holds it, so that its flags stay as they are */
        uint32_t number;
    } waiting[QUEUE_MAX];
};

void queue_init(struct queue *queue, const struct migration_services *services, struct entry *entry,
                int stream);

/* Takes fd, and stores it. −ENOBUFS when the queue is full. */
int queue_put(struct queue *queue, int fd, bool ours);

/* The same for one that is stored already, under this number. */
int queue_restore(struct queue *queue, int fd, bool ours, uint32_t number);

/* The oldest, the caller's, which is stored no more; −1 when there is none. ret_ours may be NULL. */
int queue_take(struct queue *queue, bool *ret_ours);

void queue_clear(struct queue *queue);
