/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/carrier/carrier.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "helper/carrier/socket.h"
#include "helper/carrier/worker.h"

static void stop_waiting(struct carrier *carrier)
{
    carrier->source = sd_event_source_disable_unref(carrier->source);
    if (carrier->worker) /* said, for another process that holds the socket keeps it in there */
        epoll_ctl(carrier->worker->epoll, EPOLL_CTL_DEL, carrier->fd, NULL);
    carrier->worker = NULL;
}

struct carrier *carrier_free(struct carrier *carrier)
{
    if (!carrier)
        return NULL;
    stop_waiting(carrier);
    /* First shut down: another process that holds the socket must not keep the other side waiting. */
    shutdown(carrier->fd, SHUT_RDWR);
    fd_closep(&carrier->fd);
    carrier->ops->free(carrier);
    return NULL;
}

int carrier_release(struct carrier *carrier)
{
    int fd = fd_steal(&carrier->fd);

    stop_waiting(carrier);
    carrier->ops->free(carrier);
    return fd;
}

void carrier_polled(struct carrier *carrier, uint32_t revents)
{
    if (revents & (EPOLLIN | EPOLLHUP | EPOLLERR))
        carrier->readable = carrier->polled = true;
}

static int on_io(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct carrier *carrier = userdata;

    carrier_polled(carrier, revents);
    carrier->ready(carrier, revents, carrier->userdata);
    return 0;
}

int carrier_attach(struct carrier *carrier, sd_event *event, carrier_ready_t ready, void *userdata)
{
    int r;

    carrier->ready = ready;
    carrier->userdata = userdata;
    carrier->readable = true;
    if (carrier->source)
        return 0;
    stop_waiting(carrier);
    r = sd_event_add_io(event, &carrier->source, carrier->fd, 0, on_io, carrier);
    if (r < 0)
        return r;
    carrier_watch(carrier, 0);
    return 0;
}

/* So that an error or a hang-up, which epoll(7) always tells, is told but once where nothing is waited for.
 */
#define NOTHING ((uint32_t)EPOLLONESHOT)

int carrier_attach_worker(struct carrier *carrier, struct worker *worker, uint64_t tag)
{
    struct epoll_event event = {.events = NOTHING, .data.u64 = tag};

    if (epoll_ctl(worker->epoll, EPOLL_CTL_ADD, carrier->fd, &event) < 0)
        return -errno;
    stop_waiting(carrier);
    carrier->worker = worker;
    carrier->tag = tag;
    carrier->watched = 0;
    carrier->readable = true;
    return 0;
}

static void worker_watch(struct carrier *carrier, uint32_t events)
{
    struct epoll_event event = {.events = events != 0 ? events : NOTHING, .data.u64 = carrier->tag};

    if (events == carrier->watched)
        return;
    epoll_ctl(carrier->worker->epoll, EPOLL_CTL_MOD, carrier->fd, &event);
    carrier->watched = events;
}

void carrier_watch(struct carrier *carrier, uint32_t events)
{
    if (carrier->worker) {
        worker_watch(carrier, events);
        return;
    }
    /* Neither can fail for a source of ours; both are cheap when nothing changes. */
    if (events != 0)
        sd_event_source_set_io_events(carrier->source, events);
    sd_event_source_set_enabled(carrier->source, events != 0 ? SD_EVENT_ON : SD_EVENT_OFF);
}

enum { LINGER_READS = 64 /* of a turn */ };

bool carrier_linger(struct carrier *carrier, struct ring *words)
{
    uint8_t buf[4096];
    struct iovec iov = {buf, sizeof(buf)};
    ssize_t n = carrier_send(carrier, words);

    if (n < 0 && n != -EAGAIN)
        return false;
    if (ring_unsent(words) > 0 || carrier_holds_output(carrier)) {
        carrier_watch(carrier, EPOLLOUT);
        return true;
    }
    shutdown(carrier->fd, SHUT_WR);
    for (int i = 0; i < LINGER_READS && (n = socket_recv(carrier->fd, &iov, 1)) > 0; i++)
        ;
    carrier_watch(carrier, n > 0 || n == -EAGAIN ? EPOLLIN : 0);
    return n > 0 || n == -EAGAIN;
}
