/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The helper's end of its socket to the broker. */

#include <systemd/sd-event.h>

#include "common/message.h"

struct link;

/* Takes fd. */
typedef void (*link_message_t)(struct link *link, const union message *m, int fd, void *userdata);
/* The broker is gone, or said what it may not. */
typedef void (*link_gone_t)(struct link *link, void *userdata);

struct link {
    int fd; /* owned; -1 once the broker is gone */
    unsigned phase;
    sd_event_source *source;
    link_message_t on_message;
    link_gone_t on_gone;
    void *userdata;
};

/* Takes fd on success. 0 or a negative errno. */
int link_init(struct link *link, sd_event *event, int fd);

void link_clear(struct link *link);

/* Who is told from now on. */
void link_set_handlers(struct link *link, link_message_t on_message, link_gone_t on_gone, void *userdata);

/* Borrows fd (-1 for none). What cannot be sent at once is a broker that is as good as gone: false. */
bool link_send(struct link *link, enum message_type type, union message *m, int fd);

/* One line for the broker's log; dropped where the broker does not keep up. */
void link_log(struct link *link, int priority, const char *format, ...) __attribute__((format(printf, 3, 4)));
