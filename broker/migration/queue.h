/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Sockets that were supplied and wait to be needed, the oldest first. Each counts as waiting in its
 * migration's entry. They are other processes' open files, so the service manager gets none of them
 * (release.h). The migration's helper holds them, which outlives the broker and tells the next one of them.
 * Only those that it cannot take (it is of an older version, or has yet to say that it can) are held here,
 * and are closed with the broker.
 */

#include "broker/migration/helper-side.h"
#include "broker/migration/registry.h"

#define QUEUE_MAX 64 /* sockets that no channel has taken yet: of a stream, and connections to the peer */

/* For people, of what has none any more. */
#define SUPPLY_AGAIN "If one was brought before vmferryd was started again, it may be closed: bring it anew."

struct waiting {
    uint64_t kept; /* its number at the helper; 0: it is here */
    int fd;        /* owned; −1: the helper has it */
    bool ours;     /* no other process holds it, so that its flags stay as they are */
};

struct queue {
    struct entry *entry; /* borrowed, as is the next */
    struct helper_side *helper;
    enum kept_for what;
    uint32_t stream;
    size_t n;
    struct waiting waiting[QUEUE_MAX];
};

/* Empty; borrows entry and helper. */
void queue_init(struct queue *queue, struct entry *entry, struct helper_side *helper, enum kept_for what,
                uint32_t stream);

/* Takes fd, on failure too. 0, or -ENOBUFS when the queue is full. */
int queue_put(struct queue *queue, int fd, bool ours);

/* One that the helper has, and tells of. 0 or -ENOBUFS. */
int queue_put_kept(struct queue *queue, uint64_t number, bool ours);

/* The helper can take sockets now. */
void queue_hand_over(struct queue *queue);

/* The oldest, whose fd is the caller's; false when there is none. */
bool queue_take(struct queue *queue, struct waiting *ret);

void queue_clear(struct queue *queue);
