/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/link.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <syslog.h>
#include <unistd.h>

#include "common/cleanup.h"

/* A message that the socket had no room for. */
struct waiting {
    STAILQ_ENTRY(waiting) entry;
    enum message_type type;
    union message m;
};

static void waiting_drop(struct link *link)
{
    struct waiting *first = STAILQ_FIRST(&link->waiting);

    STAILQ_REMOVE_HEAD(&link->waiting, entry);
    link->n_waiting--;
    free(first);
}

static void waiting_clear(struct link *link)
{
    while (!STAILQ_EMPTY(&link->waiting))
        waiting_drop(link);
}

static void leave_if_told(struct link *link)
{
    if (link->leaving && STAILQ_EMPTY(&link->waiting))
        sd_event_exit(link->event, 0);
}

static void link_gone(struct link *link)
{
    /* Closed before on_gone(): whatever that sends is refused by link_send() at once. */
    link->source = sd_event_source_disable_unref(link->source);
    fd_closep(&link->fd);
    waiting_clear(link);
    link->on_gone(link, NULL, link->userdata);
    leave_if_told(link);
}

/* The broker is gone, or does not know yet what this helper is. */
static void log_to_stderr(const char *text)
{
    char line[2 * MESSAGE_TEXT_MAX];
    int n = snprintf(line, sizeof(line), "vmferry-helper: %s\n", text);

    if (n > 0 && write(STDERR_FILENO, line, (size_t)n < sizeof(line) ? (size_t)n : sizeof(line) - 1) < 0)
        return;
}

/* Without the FD of a message the helper cannot do what it was told. */
static void starved(struct link *link, uint32_t type)
{
    char why[MESSAGE_TEXT_MAX];

    snprintf(why, sizeof(why),
             "The helper cannot have one more open file (that of %s): its limit is %llu, RLIMIT_NOFILE. "
             "Raise LimitNOFILE= of its unit, or the limit of the broker that starts it.",
             message_name(type), link->files_max);
    if (link->phase == PHASE_NEW)
        log_to_stderr(why);
    else
        link_log(link, LOG_ERR, "%s", why);
    link->on_gone(link, why, link->userdata);
}

/* Sends what waits; false when the broker is gone. */
static bool flush(struct link *link)
{
    struct waiting *first;
    int r = 0;

    while (r >= 0 && (first = STAILQ_FIRST(&link->waiting))) {
        r = message_send(link->fd, first->type, &first->m, -1);
        if (r >= 0)
            waiting_drop(link);
    }
    if (r < 0 && r != -EAGAIN)
        return false;
    sd_event_source_set_io_events(link->source, EPOLLIN | (STAILQ_EMPTY(&link->waiting) ? 0 : EPOLLOUT));
    leave_if_told(link);
    return true;
}

static int on_link(sd_event_source *source, int sock, uint32_t revents, void *userdata)
{
    struct link *link = userdata;
    union message m;
    int r, fd;

    if ((revents & EPOLLOUT) && !flush(link)) {
        link_gone(link);
        return 0;
    }
    r = message_recv(link->fd, TO_HELPER, link->phase, &m, &fd);
    if (r > 0) {
        if (m.header.type == MESSAGE_START_RELAY)
            link->phase = PHASE_RELAY;
        else if (m.header.type == MESSAGE_START_GATE)
            link->phase = PHASE_GATE;
        link->on_message(link, &m, fd, link->userdata);
        explicit_bzero(&m, sizeof(m)); /* START_RELAY has the secret in it */
    } else if (r == -EMFILE) {
        starved(link, m.header.type);
    } else if (r != -EAGAIN && r != -ECONNRESET) { /* after a reset what was said before is still there */
        if (r == -EBADMSG)
            link_log(link, LOG_ERR, "A message of the broker is not what the table says (%s).",
                     message_name(m.header.type));
        link_gone(link);
    }
    return 0;
}

int link_init(struct link *link, sd_event *event, int fd)
{
    struct rlimit files = {0};

    getrlimit(RLIMIT_NOFILE, &files); /* the sandbox permits that no more when it is asked for */
    *link = (struct link){.event = event, .fd = fd, .phase = PHASE_NEW, .files_max = files.rlim_cur};
    STAILQ_INIT(&link->waiting);
    return sd_event_add_io(event, &link->source, fd, EPOLLIN, on_link, link);
}

void link_clear(struct link *link)
{
    link->source = sd_event_source_disable_unref(link->source);
    link->leave = sd_event_source_disable_unref(link->leave);
    fd_closep(&link->fd);
    waiting_clear(link);
}

void link_set_handlers(struct link *link, link_message_t on_message, link_gone_t on_gone, void *userdata)
{
    link->on_message = on_message;
    link->on_gone = on_gone;
    link->userdata = userdata;
}

/* Keeps it until there is room. */
static bool wait_for_room(struct link *link, enum message_type type, const union message *m)
{
    struct waiting *waiting;

    if (type == MESSAGE_LOG)
        return true; /* what matters comes another way */
    if (link->n_waiting == LINK_WAITING_MAX)
        return false;
    waiting = malloc(sizeof(*waiting));
    if (!waiting)
        return false;
    waiting->type = type;
    waiting->m = *m;
    STAILQ_INSERT_TAIL(&link->waiting, waiting, entry);
    link->n_waiting++;
    sd_event_source_set_io_events(link->source, EPOLLIN | EPOLLOUT);
    return true;
}

bool link_send(struct link *link, enum message_type type, union message *m, int fd)
{
    int r = -EAGAIN; /* in its turn */

    if (link->fd < 0)
        return false;
    if (STAILQ_EMPTY(&link->waiting))
        r = message_send(link->fd, type, m, fd);
    /* Behind what waits already: the order is part of the protocol. A slow broker must not
     * make the helper wait, which has QEMU's bytes to move. */
    if (r == -EAGAIN && fd < 0 && link->source)
        r = wait_for_room(link, type, m) ? 0 : -ENOBUFS;
    if (r < 0)
        return false;
    if (type == MESSAGE_RESULT)
        link->phase = PHASE_ENDED;
    return true;
}

static int on_leave(sd_event_source *source, void *userdata)
{
    leave_if_told(userdata);
    return 0;
}

void link_exit(struct link *link)
{
    if (link->leaving)
        return;
    link->leaving = true;
    /* Not from here: the caller may yet have something to send. */
    if (sd_event_add_defer(link->event, &link->leave, on_leave, link) < 0)
        sd_event_exit(link->event, 0);
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
    if (!link_send(link, MESSAGE_LOG, &m, -1) && priority < LOG_DEBUG)
        log_to_stderr(m.log.text);
}
