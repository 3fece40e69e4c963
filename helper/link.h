/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The helper's end of its socket to the broker. A broker may be away for a while: what it is told meanwhile
 * waits in the socket, and what does not fit there waits here.
 */

#include <sys/queue.h>
#include <systemd/sd-event.h>

#include "common/message.h"

#define LINK_WAITING_MAX 1024 /* messages; no helper has so much to ask for */

struct link;
struct waiting;

/* Takes fd. */
typedef void (*link_message_t)(struct link *link, const union message *m, int fd, void *userdata);
/*
 * The broker is gone, or said what it may not: why is NULL, and the link is closed. Or this process could not
 * have the FD of a message: why says so, the link is open, and the broker can be told.
 */
typedef void (*link_gone_t)(struct link *link, const char *why, void *userdata);

struct link {
    sd_event *event; /* borrowed */
    int fd;          /* owned; -1 once the broker is gone */
    unsigned phase;
    sd_event_source *source, *leave;
    link_message_t on_message;
    link_gone_t on_gone;
    void *userdata;
    STAILQ_HEAD(, waiting) waiting; /* what the socket had no room for */
    size_t n_waiting;
    bool leaving;                 /* the loop ends when that is sent */
    unsigned long long files_max; /* RLIMIT_NOFILE */
};

/* Takes fd on success. 0 or a negative errno. */
int link_init(struct link *link, sd_event *event, int fd);

void link_clear(struct link *link);

/* Sets the functions that are called from now on. */
void link_set_handlers(struct link *link, link_message_t on_message, link_gone_t on_gone, void *userdata);

/* Borrows fd (-1 for none). False: the broker is gone for good; or, with an fd, that it does not keep up. */
bool link_send(struct link *link, enum message_type type, union message *m, int fd);

/* Ends the event loop, once all that was sent is on its way. */
void link_exit(struct link *link);

/* One line for the broker's log; dropped where the broker does not keep up, to stderr where it is gone.
 * LOG_DEBUG goes to no stderr. */
void link_log(struct link *link, int priority, const char *format, ...) __attribute__((format(printf, 3, 4)));
