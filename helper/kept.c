/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/kept.h"

#include <stdlib.h>
#include <sys/queue.h>

#include "common/cleanup.h"

struct item {
    STAILQ_ENTRY(item) next;
    struct kept_socket socket;
};

struct kept {
    STAILQ_HEAD(, item) items;
};

struct kept *kept_new(void)
{
    struct kept *kept = calloc(1, sizeof(*kept));

    if (kept)
        STAILQ_INIT(&kept->items);
    return kept;
}

static void drop(struct kept *kept, struct item *item)
{
    STAILQ_REMOVE(&kept->items, item, item, next);
    fd_closep(&item->socket.fd);
    free(item);
}

struct kept *kept_free(struct kept *kept)
{
    while (kept && !STAILQ_EMPTY(&kept->items))
        drop(kept, STAILQ_FIRST(&kept->items));
    free(kept);
    return NULL;
}

/* No limit of its own: the broker numbers them, and bounds what a caller may supply. */
void kept_put(struct kept *kept, const struct message_keep *m, int fd)
{
    struct item *item = calloc(1, sizeof(*item));

    if (!item) {
        fd_closep(&fd);
        return;
    }
    item->socket = (struct kept_socket){.is = *m, .fd = fd};
    STAILQ_INSERT_TAIL(&kept->items, item, next);
}

bool kept_take(struct kept *kept, uint64_t number, struct kept_socket *ret)
{
    struct item *item;

    STAILQ_FOREACH(item, &kept->items, next)
    {
        if (item->socket.is.number != number)
            continue;
        *ret = item->socket;
        item->socket.fd = -1;
        drop(kept, item);
        return true;
    }
    return false;
}

void kept_tell(const struct kept *kept, struct link *link)
{
    struct item *item;

    STAILQ_FOREACH(item, &kept->items, next)
    {
        union message m = {.kept = item->socket.is};

        link_send(link, MESSAGE_KEPT, &m, -1);
    }
}
