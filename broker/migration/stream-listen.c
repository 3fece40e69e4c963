/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/stream-listen.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "broker/errors.h"
#include "broker/migration/log.h"
#include "broker/migration/quota.h"
#include "broker/sockets/deputy.h"
#include "broker/sockets/give.h"
#include "broker/sockets/label.h"
#include "common/cleanup.h"

enum { ACCEPT_PAUSE = 50000 /* µs without accepting when there are no FDs left */ };

static int on_accept_again(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct stream *stream = userdata;

    sd_event_source_set_enabled(stream->accept, SD_EVENT_ON);
    return 0;
}

/* Level-triggered, an accept that fails for want of FDs would spin. */
static void pause_accepting(struct stream *stream)
{
    stream->retry = sd_event_source_disable_unref(stream->retry);
    if (sd_event_add_time_relative(stream->all->services->event, &stream->retry, CLOCK_MONOTONIC,
                                   ACCEPT_PAUSE, 0, on_accept_again, stream) >= 0)
        sd_event_source_set_enabled(stream->accept, SD_EVENT_OFF);
}

/* Whether it may become a channel; else that is logged. Borrows fd. */
static bool admit(struct stream *stream, int fd)
{
    struct streams *all = stream->all;
    char why[QUOTA_WHY_MAX];
    uid_t uid;

    if (!qemu_socket_peer_is(fd, &all->owner, &uid)) {
        if (log_sample(&all->strangers, "connections of other users"))
            migration_log(&all->entry->identity, LOG_WARNING, NULL,
                          "A connection to %s by uid %u was closed: it belongs to uid %u (socket-owner).",
                          stream->path, uid, all->owner.uid);
        return false;
    }
    if (quota_admit(all->services->registry, all->services->config, all->entry, 1, why) < 0) {
        if (log_sample(&all->over_quota, "connections over a limit"))
            migration_log(&all->entry->identity, LOG_WARNING, NULL, "A connection to %s was closed: %s",
                          stream->path, why);
        return false;
    }
    return true;
}

/* One connection per turn of the loop: a QEMU that connects without end must not keep other migrations
 * waiting. */
static int on_accept(sd_event_source *source, int listener, uint32_t revents, void *userdata)
{
    struct stream *stream = userdata;
    _cleanup_fd_ int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    union message m = {.qemu = {.channel = MESSAGE_CHANNEL_NEW, .stream = stream->index}};

    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            pause_accepting(stream);
        return 0;
    }
    /* What cannot be passed on is closed, and QEMU learns it by this, whenever the close is done (release.h).
     */
    if (!admit(stream, fd) || helper_side_send(stream->all->helper, MESSAGE_QEMU, &m, fd) < 0)
        shutdown(fd, SHUT_RDWR);
    return 0;
}

static int no_socket(const struct stream *stream, int r, sd_bus_error *error)
{
    if (r == -EEXIST)
        return error_set(
            error, VF_ERROR_SOCKET_UNAVAILABLE,
            "Cannot make the socket %s: something is there already. Remove it, or choose another path.",
            stream->path);
    if (deputy_why(r))
        return error_set(error, VF_ERROR_PATH_NOT_ALLOWED, "Cannot make the socket %s: %s", stream->path,
                         deputy_why(r));
    if (r == -ENOENT)
        return error_set(error, VF_ERROR_SOCKET_UNAVAILABLE,
                         "Cannot make the socket %s: its directory is not there. Make it first.",
                         stream->path);
    return error_set(error, VF_ERROR_SOCKET_UNAVAILABLE, "Cannot make the socket %s: %s.", stream->path,
                     give_why(r));
}

int stream_listen(struct stream *stream, sd_bus_error *error)
{
    const struct streams *all = stream->all;
    const char *label = all->options->layout[0] != '\0' ? all->services->config->libvirt_label : "";
    struct socket_scope scope;
    int r;

    if (stream->path[0] == '\0')
        return 0; /* its sockets come by OpenStream and AddStream */
    r = stream_scope(stream, &scope);
    if (r < 0)
        return no_socket(stream, r, error);
    r = socket_label_begin(label);
    if (r < 0)
        return error_set(error, VF_ERROR_SOCKET_UNAVAILABLE,
                         "Cannot make the socket %s with the label %s (LibvirtSocketLabel= in "
                         "vmferryd.conf(5)): %s.",
                         stream->path, label,
                         r == -ENOTSUP ? "vmferryd was built without SELinux" : strerror(-r));
    r = qemu_socket_listen(stream->path, &scope, &stream->all->owner, stream->all->services->give);
    socket_label_end(label);
    if (r < 0)
        return no_socket(stream, r, error);
    stream->listener = r;
    return stream_accept(stream);
}

int stream_accept(struct stream *stream)
{
    return sd_event_add_io(stream->all->services->event, &stream->accept, stream->listener, EPOLLIN,
                           on_accept, stream);
}
