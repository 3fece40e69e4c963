/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/helpers/link.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "broker/helpers/connect.h"
#include "broker/helpers/internal.h"
#include "broker/log.h"
#include "broker/release.h"
#include "common/cleanup.h"
#include "common/timer.h"

enum {
    START_TIMEOUT = 20000000, /* µs: systemd may have others to start before, and a machine be busy */
    EXIT_TIMEOUT = 3000000,   /* µs from the end of its socket to SIGKILL */
};

void helper_links_init(struct helper_links *links, sd_event *event, const char *path, const char *socket)
{
    *links = (struct helper_links){.event = event, .path = path, .socket = socket};
    TAILQ_INIT(&links->links);
}

void helper_links_set_bus(struct helper_links *links, sd_bus *bus)
{
    links->bus = bus;
}

void helper_links_leave(struct helper_links *links)
{
    links->leaving = true;
}

/*
 *     STARTING --READY--> READY --child exits--> DRAINING --last message--> CLOSED --> gone()
 *         '------------------'--socket ends, or kill--------------------------^
 *
 * Only forward. DRAINING guards the link against helper_link_free() in a message handler: read_one() is on
 * the stack then, and would use it after destroy().
 */
static void set_state(struct helper_link *link, enum link_state state)
{
    static const char *const names[] = {"starting", "ready", "draining", "closed"};

    if (state <= link->state)
        return;
    log_event(LOG_DEBUG, NULL, NULL, "helper %s: %s → %s", link->process.unit, names[link->state],
              names[state]);
    link->state = state;
}

static void destroy(struct helper_link *link)
{
    sd_event_source_disable_unref(link->io);
    sd_event_source_disable_unref(link->timer);
    helper_process_clear(&link->process);
    fd_closep(&link->fd);
    fd_closep(&link->ended);
    TAILQ_REMOVE(&link->links->links, link, entry);
    free(link);
}

void helper_links_clear(struct helper_links *links)
{
    while (!TAILQ_EMPTY(&links->links))
        destroy(TAILQ_FIRST(&links->links));
    links->spare_timer = sd_event_source_disable_unref(links->spare_timer);
}

/* Its socket has ended; and its process too, where it is a child. */
static void gone(struct helper_link *link)
{
    if (!link->handlers)
        destroy(link);
    else
        link->handlers->gone(link, link->why, link->userdata);
}

/* A helper that is not our child has ended when its socket closes. Its end is told from the loop, because a
 * caller up the stack may still use the link. */
static void close_socket(struct helper_link *link)
{
    set_state(link, LINK_CLOSED);
    link->io = sd_event_source_disable_unref(link->io);
    /* The service manager may have it too, for another moment. */
    if (link->fd >= 0 && !link->links->leaving)
        shutdown(link->fd, SHUT_RDWR);
    if (link->fd >= 0)
        link->ended = fd_steal(&link->fd);
    if (link->process.child) {
        if (!link->process.exited)
            timer_set(link->timer, EXIT_TIMEOUT);
    } else {
        if (link->why[0] == '\0')
            snprintf(link->why, sizeof(link->why), "has ended");
        timer_set(link->timer, !link->handlers && link->process.exit ? EXIT_TIMEOUT : 0);
    }
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct helper_link *link = userdata;

    if (link->state == LINK_READY)
        return 0;
    if (link->state == LINK_STARTING) {
        snprintf(link->why, sizeof(link->why), "did not start within %d s", START_TIMEOUT / 1000000);
        if (!link->process.child) {
            close_socket(link);
            return 0;
        }
    }
    if (link->process.child || (!link->handlers && link->process.exit))
        helper_process_kill(&link->process);
    if (!link->process.child)
        gone(link);
    return 0;
}

/* The first reason is the one that is told: what follows, such as a broken pipe, comes of it. */
void helper_link_kill(struct helper_link *link, const char *why)
{
    if (link->why[0] == '\0')
        snprintf(link->why, sizeof(link->why), "%s", why);
    helper_process_kill(&link->process);
    close_socket(link);
}

/* What is to have its effect before it is gone from the socket: a broker that is killed between reading a
 * RESULT and storing it leaves the RESULT to the next broker, which adopts the socket. */
static bool is_precious(uint32_t type)
{
    return type == MESSAGE_STATE || type == MESSAGE_RESULT;
}

/* As message_recv(); *ret_peeked: it is still in the socket. */
static int receive(struct helper_link *link, union message *ret, int *ret_fd, bool *ret_peeked)
{
    uint32_t type = 0;
    int r = message_peek_type(link->fd, &type);

    *ret_fd = -1;
    ret->header.type = type;
    if (r <= 0)
        return r;
    *ret_peeked = is_precious(type);
    return *ret_peeked ? message_peek(link->fd, TO_BROKER, link->phase, ret)
                       : message_recv(link->fd, TO_BROKER, link->phase, ret, ret_fd);
}

/* Takes from the socket what was looked at; the link may have been given up meanwhile. */
static void consume(struct helper_link *link)
{
    union message m;
    int fd = -1;

    if (link->fd >= 0) {
        message_recv(link->fd, TO_BROKER, ~0U, &m, &fd);
        fd_closep(&fd);
    }
}

/* One message; false when there is none now, or never will be. */
static bool read_one(struct helper_link *link)
{
    bool peeked = false;
    union message m;
    int fd, r;

    if (link->fd < 0 || !link->handlers)
        return false;
    if (link->strange) {
        helper_process_identify(&link->process, link->fd);
        link->strange = link->process.exit == NULL && link->state == LINK_STARTING;
    }
    r = receive(link, &m, &fd, &peeked);
    if (r == -ECONNRESET) /* it has gone with messages of ours unread; what it said before is still there */
        r = receive(link, &m, &fd, &peeked);
    if (r == -EAGAIN)
        return false;
    if (r == -ECONNRESET)
        r = 0; /* its exit says why */
    if (r == -EMFILE && (m.header.type == MESSAGE_ARRIVED || m.header.type == MESSAGE_ARRIVED_MARKED)) {
        /* That connection is closed, and its peer dials again. */
        if (log_sample(&link->links->starved, "connections that were closed for want of descriptors"))
            log_event(LOG_ERR, NULL, NULL,
                      "A connection was closed, for the broker cannot have one more open file "
                      "(RLIMIT_NOFILE). Raise LimitNOFILE= of its unit.");
        return true;
    }
    if (r <= 0) {
        if (r < 0) {
            snprintf(link->why, sizeof(link->why), "sent a message that is not permitted (%s)",
                     message_name(m.header.type));
            helper_process_kill(&link->process);
        }
        close_socket(link);
        return false;
    }
    if (m.header.type == MESSAGE_READY) {
        if (link->state == LINK_STARTING)
            set_state(link, LINK_READY);
        /* It is known by now, or never: to look at the sender of a later message would open the FDs of that.
         */
        link->strange = false;
        link->phase = link->role;
        return true;
    }
    link->handlers->message(link, &m, fd, link->userdata);
    if (peeked)
        consume(link);
    if (m.header.type == MESSAGE_RESULT)
        link->phase = PHASE_ENDED;
    return true;
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct helper_link *link = userdata;

    read_one(link);
    return 0;
}

static void on_exit_of_process(void *userdata)
{
    struct helper_link *link = userdata;

    if (!link->process.child) {
        /* An owner waits for the end of its socket, which is bound to come. */
        if (!link->handlers && link->state == LINK_CLOSED)
            gone(link);
        return;
    }
    if (link->why[0] == '\0')
        snprintf(link->why, sizeof(link->why), "%s", link->process.why);
    set_state(link, LINK_DRAINING);
    /* What it had said before is still to be heard: its result, above all. */
    while (read_one(link))
        ;
    if (link->fd >= 0)
        close_socket(link);
    gone(link);
}

static void on_unit_of_process(void *userdata)
{
    struct helper_link *link = userdata;

    if (link->handlers && link->handlers->unit)
        link->handlers->unit(link, link->userdata);
}

/* ret_theirs: the other end, for a child; the caller's. */
static int open_socket(struct helper_link *link, int *ret_theirs)
{
    int pair[2];

    if (link->links->socket) {
        link->fd = connect_unit(link->links->socket);
        return link->fd < 0 ? link->fd : 0;
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) < 0)
        return -errno;
    link->fd = pair[0];
    *ret_theirs = pair[1];
    return 0;
}

static struct helper_process process_of(struct helper_link *link)
{
    return (struct helper_process){.event = link->links->event,
                                   .bus = link->links->bus,
                                   .on_exit = on_exit_of_process,
                                   .on_unit = on_unit_of_process,
                                   .userdata = link};
}

int helper_link_start(struct helper_links *links, const struct helper_handlers *handlers, void *userdata,
                      struct helper_link **ret)
{
    _cleanup_own_fd_ int theirs = -1;
    struct helper_link *link = calloc(1, sizeof(*link));
    int r;

    if (!link)
        return -ENOMEM;
    link->phase = PHASE_NEW;
    link->handlers = handlers;
    link->userdata = userdata;
    link->links = links;
    link->fd = link->ended = -1;
    link->strange = links->socket != NULL;
    link->process = process_of(link);
    TAILQ_INSERT_TAIL(&links->links, link, entry);
    r = sd_event_add_time_relative(links->event, &link->timer, CLOCK_MONOTONIC, START_TIMEOUT, 0, on_timer,
                                   link);
    if (r >= 0)
        r = open_socket(link, &theirs);
    if (r >= 0)
        r = sd_event_add_io(links->event, &link->io, link->fd, EPOLLIN, on_io, link);
    if (r >= 0 && theirs >= 0)
        r = helper_process_fork(&link->process, links->path, theirs);
    if (r < 0) {
        destroy(link);
        return r;
    }
    *ret = link;
    return 0;
}

/* ---- One of the broker before this one ---- */

int helper_link_adopt(struct helper_links *links, int fd, const char *unit, enum message_phase phase,
                      const struct helper_handlers *handlers, void *userdata, struct helper_link **ret)
{
    _cleanup_fd_ int owned = fd;
    struct helper_link *link = calloc(1, sizeof(*link));
    int r, on;

    if (!link)
        return -ENOMEM;
    *link = (struct helper_link){
        .links = links,
        .fd = fd_steal(&owned),
        .ended = -1,
        .phase = PHASE_NEW | phase, /* its READY may still be in the socket */
        .role = phase,
        .state = LINK_READY,
        .strange = links->socket && unit[0] == '\0',
        .handlers = handlers,
        .userdata = userdata,
    };
    link->process = process_of(link);
    snprintf(link->process.unit, sizeof(link->process.unit), "%s", unit);
    TAILQ_INSERT_TAIL(&links->links, link, entry);
    on = link->strange;
    r = setsockopt(link->fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0 ? -errno : 0;
    if (r >= 0)
        r = sd_event_add_io(links->event, &link->io, link->fd, EPOLLIN, on_io, link);
    if (r >= 0)
        r = sd_event_add_time(links->event, &link->timer, CLOCK_MONOTONIC, UINT64_MAX, 0, on_timer, link);
    if (r < 0) {
        destroy(link);
        return r;
    }
    *ret = link;
    return 0;
}

int helper_link_fd(const struct helper_link *link)
{
    return link->fd >= 0 ? link->fd : link->ended;
}

/* ---- Its owner ---- */

struct helper_link *helper_link_free(struct helper_link *link)
{
    if (!link)
        return NULL;
    link->handlers = NULL; /* the owner hears no more, whatever comes of the rest */
    if (link->process.child && link->process.exited && link->state != LINK_DRAINING)
        destroy(link);
    else
        close_socket(link); /* its exit destroys the rest, or its timer */
    return NULL;
}

int helper_link_send(struct helper_link *link, enum message_type type, union message *m, int fd)
{
    unsigned role = type == MESSAGE_START_RELAY ? PHASE_RELAY : type == MESSAGE_START_GATE ? PHASE_GATE : 0;
    int r = link->fd >= 0 ? message_send(link->fd, type, m, fd) : -ENOTCONN;

    if (r >= 0 && role != 0) {
        link->role = role;
        if (link->state == LINK_READY) /* a spare */
            link->phase = role;
    }
    return r;
}

bool helper_link_has_room(const struct helper_link *link)
{
    int unread, size;
    socklen_t length = sizeof(size);

    return link->fd >= 0 && ioctl(link->fd, SIOCOUTQ, &unread) >= 0 &&
           getsockopt(link->fd, SOL_SOCKET, SO_SNDBUF, &size, &length) >= 0 && unread <= size / 2;
}

const char *helper_link_unit(const struct helper_link *link)
{
    return link ? link->process.unit : "";
}

const char *helper_links_source(const struct helper_links *links)
{
    return links->socket ? links->socket : links->path;
}

const char *helper_links_option(const struct helper_links *links)
{
    return links->socket ? "Is vmferry-helper.socket active? See --helper-socket=." : "See --helper=.";
}
