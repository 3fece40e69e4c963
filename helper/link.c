/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "link.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <syslog.h>

#include "common/cleanup.h"

static void link_gone(struct link *link)
{
    link->source = sd_event_source_disable_unref(link->source);
    fd_closep(&link->fd);
    link->on_gone(link, link->userdata);
}

static int on_link(sd_event_source *source, int sock, uint32_t revents, void *userdata)
{
    struct link *link = userdata;
    union message m;
    int r, fd;

    (void)source;
    (void)sock;
    (void)revents;
    r = message_recv(link->fd, TO_HELPER, link->phase, &m, &fd);
    if (r > 0) {
        if (m.header.type == MESSAGE_START_RELAY)
            link->phase = PHASE_RELAY;
        else if (m.header.type == MESSAGE_START_GATE)
            link->phase = PHASE_GATE;
        link->on_message(link, &m, fd, link->userdata);
        explicit_bzero(&m, sizeof(m)); /* START_RELAY has the secret in it */
    } else if (r != -EAGAIN) {
        if (r < 0)
            link_log(link, LOG_ERR, "A message of the broker is not what the table says (%s).",
                     message_name(m.header.type));
        link_gone(link);
    }
    return 0;
}

int link_init(struct link *link, sd_event *event, int fd)
{
    *link = (struct link){.fd = fd, .phase = PHASE_NEW};
    return sd_event_add_io(event, &link->source, fd, EPOLLIN, on_link, link);
}

void link_clear(struct link *link)
{
    link->source = sd_event_source_disable_unref(link->source);
    fd_closep(&link->fd);
}

void link_set_handlers(struct link *link, link_message_t on_message, link_gone_t on_gone, void *userdata)
{
    link->on_message = on_message;
    link->on_gone = on_gone;
    link->userdata = userdata;
}

bool link_send(struct link *link, enum message_type type, union message *m, int fd)
{
    if (link->fd < 0 || message_send(link->fd, type, m, fd) < 0)
        return false;
    if (type == MESSAGE_RESULT)
        link->phase = PHASE_ENDED;
    return true;
}

void link_log(struct link *link, int priority, const char *format, ...)
{
    union message m = {0};
    char text[2 * MESSAGE_TEXT_MAX];
    va_list args;

    if (link->phase == PHASE_NEW)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    m.log.priority = (uint32_t)priority;
    message_text_set(m.log.text, sizeof(m.log.text), text);
    link_send(link, MESSAGE_LOG, &m, -1);
}
