/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/queue.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "broker/migration/stored-names.h"
#include "common/cleanup.h"

void queue_init(struct queue *queue, const struct migration_services *services, struct entry *entry,
                int stream)
{
    *queue = (struct queue){.services = services, .entry = entry, .stream = stream};
}

static void name_of(const struct queue *queue, size_t i, char ret[static STORE_NAME_MAX])
{
    const struct identity *identity = &queue->entry->identity;
    uint32_t number = queue->waiting[i].number;

    if (queue->stream == QUEUE_OF_PEERS)
        stored_name(identity, ret, "peer.%" PRIu32, number);
    else
        stored_name(identity, ret, "%s.%d.%" PRIu32, queue->waiting[i].ours ? "ours" : "sock", queue->stream,
                    number);
}

int queue_restore(struct queue *queue, int fd, bool ours, uint32_t number)
{
    _cleanup_fd_ int owned = fd;

    if (queue->n == QUEUE_MAX)
        return -ENOBUFS;
    queue->waiting[queue->n].ours = ours;
    queue->waiting[queue->n].number = number;
    queue->waiting[queue->n++].fd = fd_steal(&owned);
    queue->entry->n_waiting++;
    if (queue->last < number)
        queue->last = number;
    return 0;
}

int queue_put(struct queue *queue, int fd, bool ours)
{
    char name[STORE_NAME_MAX];
    int r = queue_restore(queue, fd, ours, queue->last + 1);

    if (r < 0)
        return r;
    name_of(queue, queue->n - 1, name);
    /* Room stays for the next record of each migration that runs. */
    store_put(queue->services->store, name, fd, queue->services->registry->n_running);
    return 0;
}

int queue_take(struct queue *queue, bool *ret_ours)
{
    char name[STORE_NAME_MAX];
    int fd;

    if (queue->n == 0)
        return -1;
    fd = queue->waiting[0].fd;
    if (ret_ours)
        *ret_ours = queue->waiting[0].ours;
    name_of(queue, 0, name);
    store_remove(queue->services->store, name, fd);
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
