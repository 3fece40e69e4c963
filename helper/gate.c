/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/gate.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <syslog.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "common/error.h"
#include "helper/carrier/socket.h"
#include "helper/limits.h"
#include "helper/protocol/greeting.h"

enum {
    LISTENERS_MAX = 32,
    ACCEPT_BATCH = 64,     /* connections that one wake-up accepts before others have their turn */
    DRAIN_MAX = 64 * 1024, /* bytes of a rejected peer that are read, so that it can read the rejection */
    RETRY_PAUSE = 10000,   /* µs until the broker is tried again */
    FULL_PAUSE = 100000,   /* µs without accepting when the process is out of FDs */
};

/*
 * A connection that has no preamble yet, or one that was rejected. All have the same deadline, so the list in
 * the order of their arrival is also that of their ends: one timer for the first is enough.
 */
struct visitor {
    struct gate *gate;
    TAILQ_ENTRY(visitor) entry;
    sd_event_source *source;
    int fd; /* owned */
    uint64_t since;
    uint8_t buf[PREAMBLE_SIZE];
    size_t n_buf;
    bool rejected;
    bool waiting; /* its preamble is good, but the broker has yet to take it */
    size_t drained;
};

struct gate {
    sd_event *event;   /* borrowed */
    struct link *link; /* borrowed */
    uint32_t max_pending;
    uint32_t n_displaced; /* closed for a newer one, when all places were taken */
    uint64_t deadline;    /* µs */
    uint32_t features;    /* enum message_offers: what the broker offers */
    uint32_t n_visitors;
    TAILQ_HEAD(, visitor) visitors; /* the oldest first */
    sd_event_source *timer;
    struct {
        int fd; /* owned */
        sd_event_source *source;
    } listeners[LISTENERS_MAX];
    size_t n_listeners;
    sd_event_source *pause;
    sd_event_source *retry;
};

static void visitor_free(struct visitor *visitor)
{
    struct gate *gate = visitor->gate;

    TAILQ_REMOVE(&gate->visitors, visitor, entry);
    gate->n_visitors--;
    sd_event_source_disable_unref(visitor->source);
    fd_closep(&visitor->fd);
    free(visitor);
}

static int on_deadline(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct gate *gate = userdata;
    struct visitor *first;

    while ((first = TAILQ_FIRST(&gate->visitors)) && turn_now(gate->event) >= first->since + gate->deadline)
        visitor_free(first);
    if (first) {
        sd_event_source_set_time(source, first->since + gate->deadline);
        sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    }
    return 0;
}

static void arm_deadline(struct gate *gate)
{
    int enabled = SD_EVENT_OFF;

    sd_event_source_get_enabled(gate->timer, &enabled);
    if (enabled == SD_EVENT_OFF) {
        sd_event_source_set_time(gate->timer, turn_now(gate->event) + gate->deadline);
        sd_event_source_set_enabled(gate->timer, SD_EVENT_ONESHOT);
    }
}

/* Says why, and goes on reading what the peer had sent: a close on unread bytes would reset it all. */
static void visitor_reject(struct visitor *visitor, uint32_t error)
{
    uint8_t buf[REJECTION_SIZE];
    struct iovec iov = {buf, sizeof(buf)};

    visitor->rejected = true;
    rejection_encode(error, buf);
    if (socket_send(visitor->fd, &iov, 1) < (ssize_t)sizeof(buf)) {
        visitor_free(visitor);
        return;
    }
    shutdown(visitor->fd, SHUT_WR);
}

static bool hand_up(struct gate *gate, const struct preamble *preamble, int fd)
{
    union message m = {.arrived_marked = {.mark = preamble->mark}};

    m.arrived.id = preamble->id;
    m.arrived.kind = preamble->kind;
    return link_send(gate->link, preamble->mark.number != 0 ? MESSAGE_ARRIVED_MARKED : MESSAGE_ARRIVED, &m,
                     fd);
}

/* The preamble is whole: hands the connection up, or ends it. */
static void visitor_decide(struct visitor *visitor)
{
    struct gate *gate = visitor->gate;
    struct preamble preamble;

    switch (preamble_decode(visitor->buf, &preamble)) {
    case VERDICT_OK:
        /* A broker that does not know of marks would take ARRIVED_MARKED for a violation and kill the gate.
         */
        if ((preamble.mark.number != 0 && !(gate->features & OFFER_MARKS)) ||
            hand_up(gate, &preamble, visitor->fd)) {
            visitor_free(visitor);
            break;
        }
        /* The broker does not keep up; again in a moment, for as long as the deadline allows. */
        visitor->waiting = true;
        sd_event_source_set_enabled(visitor->source, SD_EVENT_OFF);
        sd_event_source_set_time_relative(gate->retry, RETRY_PAUSE);
        sd_event_source_set_enabled(gate->retry, SD_EVENT_ONESHOT);
        break;
    case VERDICT_VERSION:
        visitor_reject(visitor, VF_ERROR_PROTOCOL_MISMATCH);
        break;
    default:
        visitor_free(visitor);
    }
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct gate *gate = userdata;
    struct visitor *visitor, *next;

    for (visitor = TAILQ_FIRST(&gate->visitors); visitor; visitor = next) {
        next = TAILQ_NEXT(visitor, entry);
        if (visitor->waiting) {
            visitor->waiting = false;
            visitor_decide(visitor);
        }
    }
    return 0;
}

static int on_visitor(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct visitor *visitor = userdata;
    uint8_t drain[4096];
    struct iovec iov = {visitor->buf + visitor->n_buf, PREAMBLE_SIZE - visitor->n_buf};
    ssize_t n;

    if (visitor->rejected)
        iov = (struct iovec){drain, sizeof(drain)};
    n = socket_recv(fd, &iov, 1);
    if (n == -EAGAIN)
        return 0;
    if (n <= 0) {
        visitor_free(visitor);
    } else if (visitor->rejected) {
        visitor->drained += (size_t)n;
        if (visitor->drained > DRAIN_MAX)
            visitor_free(visitor);
    } else {
        visitor->n_buf += (size_t)n;
        if (visitor->n_buf == PREAMBLE_SIZE)
            visitor_decide(visitor);
    }
    return 0;
}

/* For the administrator, at the 1st, 2nd, 4th, 8th … time. */
static void say_full(struct gate *gate)
{
    if (gate->n_displaced == UINT32_MAX)
        return;
    gate->n_displaced++;
    if ((gate->n_displaced & (gate->n_displaced - 1)) != 0)
        return;
    link_log(gate->link, LOG_WARNING,
             "%" PRIu32
             " connections have not said what they want, which is the limit (MaxGateConnections=): the "
             "oldest is closed.",
             gate->max_pending);
}

/* Takes fd. NULL when there is no memory for it. When all places are taken the oldest pays: one that means it
 * has said its preamble long ago, and a flood displaces itself. */
static struct visitor *visitor_new(struct gate *gate, int fd)
{
    _cleanup_fd_ int owned = fd;
    struct visitor *visitor;

    if (gate->n_visitors >= gate->max_pending) {
        say_full(gate);
        visitor_free(TAILQ_FIRST(&gate->visitors));
    }
    visitor = calloc(1, sizeof(*visitor));
    if (!visitor)
        return NULL;
    visitor->gate = gate;
    visitor->since = turn_now(gate->event);
    visitor->fd = fd_steal(&owned);
    TAILQ_INSERT_TAIL(&gate->visitors, visitor, entry);
    gate->n_visitors++;
    if (sd_event_add_io(gate->event, &visitor->source, fd, EPOLLIN, on_visitor, visitor) < 0) {
        visitor_free(visitor);
        return NULL;
    }
    arm_deadline(gate);
    return visitor;
}

static void set_accepting(struct gate *gate, bool accepting)
{
    for (size_t i = 0; i < gate->n_listeners; i++)
        sd_event_source_set_enabled(gate->listeners[i].source, accepting ? SD_EVENT_ON : SD_EVENT_OFF);
}

static int on_pause_end(sd_event_source *source, uint64_t usec, void *userdata)
{
    set_accepting(userdata, true);
    return 0;
}

static int on_listener(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct gate *gate = userdata;

    for (int i = 0; i < ACCEPT_BATCH; i++) {
        int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        struct visitor *visitor;

        if (peer < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
            /* Level-triggered, it would spin; the deadline frees places meanwhile. */
            set_accepting(gate, false);
            sd_event_source_set_time_relative(gate->pause, FULL_PAUSE);
            sd_event_source_set_enabled(gate->pause, SD_EVENT_ONESHOT);
        }
        if (peer < 0)
            break;
        visitor = visitor_new(gate, peer);
        if (visitor) /* most have said their preamble with the first segment */
            on_visitor(visitor->source, peer, EPOLLIN, visitor);
    }
    return 0;
}

static void add_listener(struct gate *gate, int fd)
{
    _cleanup_fd_ int owned = fd;
    int accepting = 0;
    socklen_t size = sizeof(accepting);

    if (gate->n_listeners == LISTENERS_MAX ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepting, &size) < 0 || !accepting ||
        sd_event_add_io(gate->event, &gate->listeners[gate->n_listeners].source, fd, EPOLLIN, on_listener,
                        gate) < 0) {
        link_log(gate->link, LOG_ERR, "The gate was given a socket on which it cannot accept.");
        return;
    }
    gate->listeners[gate->n_listeners++].fd = fd_steal(&owned);
}

static void on_message(struct link *link, const union message *m, int fd, void *userdata)
{
    struct gate *gate = userdata;
    struct visitor *visitor;

    if (m->header.type == MESSAGE_LISTENER) {
        add_listener(gate, fd);
    } else if (m->header.type == MESSAGE_REJECT) {
        visitor = visitor_new(gate, fd);
        if (visitor)
            visitor_reject(visitor, m->reject.error);
    } else if (m->header.type == MESSAGE_OFFER) {
        gate->features = m->offer.features;
    } else {
        fd_closep(&fd);
    }
}

static void on_gone(struct link *link, const char *why, void *userdata)
{
    struct gate *gate = userdata;

    sd_event_exit(gate->event, 0);
}

int gate_new(sd_event *event, struct link *link, const struct message_start_gate *start, struct gate **ret)
{
    struct gate *gate;
    int r;

    if (start->max_pending == 0 || start->max_pending > GATE_PENDING_MAX || start->deadline_msec == 0)
        return -EBADMSG;
    gate = calloc(1, sizeof(*gate));
    if (!gate)
        return -ENOMEM;
    gate->event = event;
    gate->link = link;
    gate->max_pending = start->max_pending;
    gate->deadline = (uint64_t)start->deadline_msec * 1000;
    TAILQ_INIT(&gate->visitors);
    r = sd_event_add_time(event, &gate->timer, CLOCK_MONOTONIC, 0, 1000, on_deadline, gate);
    if (r >= 0)
        r = sd_event_source_set_enabled(gate->timer, SD_EVENT_OFF);
    if (r >= 0)
        r = sd_event_add_time(event, &gate->pause, CLOCK_MONOTONIC, 0, 1000, on_pause_end, gate);
    if (r >= 0)
        r = sd_event_source_set_enabled(gate->pause, SD_EVENT_OFF);
    if (r >= 0)
        r = sd_event_add_time(event, &gate->retry, CLOCK_MONOTONIC, 0, 1000, on_retry, gate);
    if (r >= 0)
        r = sd_event_source_set_enabled(gate->retry, SD_EVENT_OFF);
    if (r < 0) {
        gate_free(gate);
        return r;
    }
    link_set_handlers(link, on_message, on_gone, gate);
    *ret = gate;
    return 0;
}

struct gate *gate_free(struct gate *gate)
{
    if (!gate)
        return NULL;
    while (!TAILQ_EMPTY(&gate->visitors))
        visitor_free(TAILQ_FIRST(&gate->visitors));
    for (size_t i = 0; i < gate->n_listeners; i++) {
        sd_event_source_disable_unref(gate->listeners[i].source);
        fd_closep(&gate->listeners[i].fd);
    }
    sd_event_source_disable_unref(gate->timer);
    sd_event_source_disable_unref(gate->pause);
    sd_event_source_disable_unref(gate->retry);
    free(gate);
    return NULL;
}
