/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/queue.h"

#include <errno.h>
#include <string.h>

#include "common/cleanup.h"

void queue_init(struct queue *queue, struct entry *entry, struct helper_side *helper, enum kept_for what,
                uint32_t stream)
{
    *queue = (struct queue){.entry = entry, .helper = helper, .what = what, .stream = stream};
}

static int put(struct queue *queue, struct waiting waiting)
{
    if (queue->n == QUEUE_MAX)
        return -ENOBUFS;
    queue->waiting[queue->n++] = waiting;
    queue->entry->n_waiting++;
    return 0;
}

int queue_put(struct queue *queue, int fd, bool ours)
{
    _cleanup_fd_ int owned = fd;
    int r = put(queue, (struct waiting){.fd = fd, .ours = ours});

    if (r < 0)
        return r;
    fd_steal(&owned);
    queue_hand_over(queue);
    return 0;
}

int queue_put_kept(struct queue *queue, uint64_t number, bool ours)
{
    return put(queue, (struct waiting){.kept = number, .fd = -1, .ours = ours});
}

/* The helper outlives this broker, and so do the sockets that it keeps. One that it does not take (number 0:
 * an old helper, or a full socket) stays here, and is lost with this broker. */
void queue_hand_over(struct queue *queue)
{
    for (size_t i = 0; i < queue->n; i++) {
        struct waiting *waiting = &queue->waiting[i];

        if (waiting->kept == 0)
            waiting->kept =
                helper_side_keep(queue->helper, queue->what, queue->stream, !waiting->ours, waiting->fd);
        if (waiting->kept != 0)
            fd_closep(&waiting->fd);
    }
}

bool queue_take(struct queue *queue, struct waiting *ret)
{
    if (queue->n == 0)
        return false;
    *ret = queue->waiting[0];
    memmove(queue->waiting, queue->waiting + 1, --queue->n * sizeof(queue->waiting[0]));
    queue->entry->n_waiting--;
    return true;
}

void queue_clear(struct queue *queue)
{
    struct waiting waiting;

    while (queue_take(queue, &waiting))
        fd_closep(&waiting.fd);
}
