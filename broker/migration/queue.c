/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/queue.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "common/cleanup.h"

void queue_init(struct queue *queue, struct entry *entry)
{
    *queue = (struct queue){.entry = entry};
}

int queue_put(struct queue *queue, int fd, bool ours)
{
    _cleanup_fd_ int owned = fd;

    if (queue->n == QUEUE_MAX)
        return -ENOBUFS;
    queue->waiting[queue->n].ours = ours;
    queue->waiting[queue->n++].fd = fd_steal(&owned);
    queue->entry->n_waiting++;
    return 0;
}

int queue_take(struct queue *queue, bool *ret_ours)
{
    int fd;

    if (queue->n == 0)
        return -1;
    fd = queue->waiting[0].fd;
    if (ret_ours)
        *ret_ours = queue->waiting[0].ours;
    memmove(queue->waiting, queue->waiting + 1, --queue->n * sizeof(queue->waiting[0]));
    queue->entry->n_waiting--;
    return fd;
}

void queue_clear(struct queue *queue)
{
    int fd;

    while ((fd = queue_take(queue, NULL)) >= 0)
        close(fd);
}
