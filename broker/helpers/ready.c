/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/helpers/ready.h"

#include <sys/socket.h>

#include "broker/helpers/internal.h"
#include "broker/log.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/timer.h"

enum {
    PAUSE = 100000, /* µs from the use of a spare to the next one, and on to the one after that: the
                       migrations that took them go first */
};

static void spare_said(struct helper_link *link, const union message *m, int fd, void *userdata)
{
    fd_closep(&fd);
    helper_link_kill(link, "said something before it was asked");
}

/* None is made until a helper is needed: ones that always die are not started over and over. */
static void spare_gone(struct helper_link *link, const char *why, void *userdata)
{
    struct helper_links *links = userdata;

    log_event(LOG_NOTICE, NULL, NULL, "The spare helper %s.", why);
    links->n_spares--;
    links->to_make = 0;
    helper_link_free(link);
}

static const struct helper_handlers spare_handlers = {.message = spare_said, .gone = spare_gone};

/* The one that waits longest, and is ready before those that are not; NULL: there is none. */
static struct helper_link *find_spare(const struct helper_links *links, enum link_state state)
{
    struct helper_link *link;

    TAILQ_FOREACH(link, &links->links, entry)
    {
        if (link->handlers == &spare_handlers && link->state == state)
            return link;
    }
    return NULL;
}

/* The caller's now; NULL: there is none. */
static struct helper_link *take_spare(struct helper_links *links)
{
    struct helper_link *link = find_spare(links, LINK_READY);

    if (!link)
        link = find_spare(links, LINK_STARTING);
    if (link)
        links->n_spares--;
    return link;
}

/* Makes one, or gives up those that were not needed for long; and then waits for the next such time. */
static int on_spare_time(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct helper_links *links = userdata;
    const uint64_t now = exact_now();
    const unsigned wanted = spares_wanted(&links->spares, now);
    struct helper_link *link;
    uint64_t next;

    while (links->n_spares > wanted && (link = take_spare(links)))
        helper_link_free(link);
    if (links->n_spares < wanted && links->to_make > 0 && !find_spare(links, LINK_STARTING)) {
        links->to_make--;
        if (helper_link_start(links, &spare_handlers, links, &link) >= 0)
            links->n_spares++;
        else
            links->to_make = 0;
    }
    next = links->n_spares < wanted && links->to_make > 0 ? PAUSE : spares_fall_in(&links->spares, now);
    if (next != UINT64_MAX)
        timer_set(source, next);
    return 0;
}

/* As many are made as are wanted now, each once. */
static void make_spares(struct helper_links *links, uint64_t pause)
{
    const unsigned wanted = spares_wanted(&links->spares, exact_now());

    if (!links->socket)
        return;
    links->to_make = links->n_spares < wanted ? wanted - links->n_spares : 0;
    timer_arm(links->event, &links->spare_timer, pause, on_spare_time, links);
}

void helper_links_keep_spares(struct helper_links *links, unsigned max)
{
    const bool begins = !links->spare_timer;

    links->spares.max = max;
    make_spares(links, begins ? 0 : PAUSE);
}

/* Not seen to be so, for its end may wait to be read. */
static bool has_ended(const struct helper_link *link)
{
    char byte;

    return link->fd < 0 || recv(link->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

int helper_link_new(struct helper_links *links, const struct helper_handlers *handlers, void *userdata,
                    struct helper_link **ret)
{
    struct helper_link *link = take_spare(links);
    int r = 0;

    while (link && has_ended(link)) {
        helper_link_free(link);
        link = take_spare(links);
    }
    if (link) {
        link->handlers = handlers;
        link->userdata = userdata;
    } else {
        r = helper_link_start(links, handlers, userdata, &link);
    }
    if (r < 0)
        return r;
    spares_take(&links->spares, exact_now());
    make_spares(links, PAUSE);
    *ret = link;
    return 0;
}
