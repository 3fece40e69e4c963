/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/stream-dial.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "broker/errors.h"
#include "broker/migration/pipes.h"
#include "broker/migration/quota.h"
#include "broker/migration/stored-names.h"
#include "broker/sockets/deputy.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/timer.h"

enum {
    PAUSE_FIRST = 5000, /* µs between the tries to connect to QEMU, doubled up to */
    PAUSE_MAX = 250000, /* this */
};

/* ---- Incoming: the broker connects ---- */

static void dial_name(const struct stream *stream, char ret[static STORE_NAME_MAX])
{
    stored_name(&stream->all->entry->identity, ret, "dial.%u.%u", stream->index, stream->dial_channel);
}

void stream_drop_dial(struct stream *stream)
{
    char name[STORE_NAME_MAX];

    if (stream->dial < 0)
        return;
    dial_name(stream, name);
    store_remove(stream->all->services->store, name, stream->dial);
    fd_closep(&stream->dial);
}

/* A connection to QEMU that a dead broker takes with it would be QEMU's end. So it is stored before it is
 * one. */
static int make_dial(struct stream *stream)
{
    const struct migration_services *services = stream->all->services;
    char name[STORE_NAME_MAX];

    if (stream->dial >= 0 && stream->dial_channel == stream->channel)
        return 0;
    stream_drop_dial(stream);
    stream->dial = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (stream->dial < 0)
        return -errno;
    stream->dial_channel = stream->channel;
    qemu_socket_tune(stream->dial);
    dial_name(stream, name);
    store_put(services->store, name, stream->dial, services->registry->n_running);
    return 0;
}

/* 0 when it is connected. */
static int dial(struct stream *stream, const struct socket_scope *scope)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof(address);
    int r = make_dial(stream);

    /* A socket out of the store may be connected already: the broker before this one was killed behind
     * connect(2). */
    if (r < 0 || getpeername(stream->dial, (struct sockaddr *)&address, &size) >= 0)
        return r;
    return qemu_socket_connect_by(stream->dial, stream->path, scope);
}

/* Borrows the socket. The pipe goes before QEMU's socket, so
 * that the helper has it when the first bytes move. The stored copy goes last: the helper has its own by
 * then. */
static void connected(struct stream *stream, const struct waiting *by)
{
    union message m;

    if (by->ours)
        pipes_give(stream->all, stream->channel);
    stream->dialling = false;
    if (by->kept != 0) {
        m.use = (struct message_use){.number = by->kept, .request = stream->channel};
        helper_side_answer(stream->all->helper, MESSAGE_USE, &m, -1);
    } else {
        m.qemu =
            (struct message_qemu){.channel = stream->channel, .stream = stream->index, .shared = !by->ours};
        helper_side_answer(stream->all->helper, MESSAGE_QEMU, &m, by->fd);
    }
    stream_drop_dial(stream);
}

static void failed(struct stream *stream, enum vf_error error, const char *why)
{
    union message m = {.qemu_failed = {.channel = stream->channel, .stream = stream->index, .error = error}};
    char text[MESSAGE_TEXT_MAX + 256];

    stream->dialling = false;
    snprintf(text, sizeof(text), "Cannot connect to the destination QEMU's socket %s (stream '%s'): %s",
             stream->path, stream_name(stream), why);
    message_text_set(m.qemu_failed.text, sizeof(m.qemu_failed.text), text);
    helper_side_answer(stream->all->helper, MESSAGE_QEMU_FAILED, &m, -1);
    stream_drop_dial(stream);
}

/* It could not be connected, for this reason: true where no further try is made. */
static bool give_up(struct stream *stream, int r, uint64_t now)
{
    char why[256];

    switch (r) {
    case -ENOENT:       /* QEMU binds late */
    case -ECONNREFUSED: /* it has bound, and will listen */
    case -EAGAIN:       /* its backlog is full */
    case -EMFILE:
    case -ENFILE:
        if (now < stream->deadline)
            return false;
        snprintf(why, sizeof(why),
                 "%s. Start QEMU with -incoming unix:%s, or send it migrate-incoming, in time.", strerror(-r),
                 stream->path);
        failed(stream, VF_ERROR_SOCKET_UNAVAILABLE, why);
        return true;
    case -ENOTSOCK:
        failed(stream, VF_ERROR_SOCKET_UNAVAILABLE, "what is there is no socket.");
        return true;
    default:
        if (deputy_why(r)) {
            failed(stream, VF_ERROR_PATH_NOT_ALLOWED, deputy_why(r));
            return true;
        }
        snprintf(why, sizeof(why), "%s.", strerror(-r));
        failed(stream, VF_ERROR_SOCKET_UNAVAILABLE, why);
        return true;
    }
}

/* One try: true when that settled it. */
static bool try_connect(struct stream *stream, uint64_t now)
{
    struct socket_scope scope;
    struct waiting supplied;
    char why[256];
    uid_t uid = (uid_t)-1;
    int r;

    if (queue_take(&stream->supplied, &supplied)) {
        connected(stream, &supplied);
        fd_closep(&supplied.fd);
        return true;
    }
    if (stream->path[0] == '\0') {
        if (now < stream->deadline)
            return false;
        snprintf(why, sizeof(why),
                 "it has no path, and nobody gave its socket by OpenStream or AddStream in time.%s",
                 stream->all->entry->restored ? " " SUPPLY_AGAIN : "");
        failed(stream, VF_ERROR_SOCKET_UNAVAILABLE, why);
        return true;
    }
    /* The path says where to connect, the peer's credentials say who listens: another user may have put a
     * socket of their own into a directory that both can write to. */
    r = stream_scope(stream, &scope);
    if (r >= 0)
        r = dial(stream, &scope);
    if (r >= 0 && !qemu_socket_peer_is(stream->dial, &stream->all->owner, &uid)) {
        snprintf(why, sizeof(why),
                 "the process that listens there runs as uid %u, not as uid %u (socket-owner).", uid,
                 stream->all->owner.uid);
        failed(stream, VF_ERROR_PATH_NOT_ALLOWED, why);
        return true;
    }
    if (r >= 0) {
        connected(stream, &(struct waiting){.fd = stream->dial, .ours = true});
        return true;
    }
    return give_up(stream, r, now);
}

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct stream *stream = userdata;

    if (!stream->dialling || try_connect(stream, usec))
        return 0;
    timer_set(source, stream->pause);
    stream->pause = stream->pause * 2 < PAUSE_MAX ? stream->pause * 2 : PAUSE_MAX;
    return 0;
}

void stream_connect(struct stream *stream, uint32_t channel)
{
    const struct migration_services *services = stream->all->services;
    char why[QUOTA_WHY_MAX];
    uint64_t now;
    int r;

    stream->channel = channel;
    if (quota_admit(services->registry, services->config, stream->all->entry, 0, why) <
        0) { /* this one is counted already */
        failed(stream, VF_ERROR_LIMIT_EXCEEDED, why);
        return;
    }
    now = turn_now(services->event);
    stream->dialling = true;
    stream->deadline = now + services->config->qemu_timeout;
    stream->pause = PAUSE_FIRST;
    if (try_connect(stream, now))
        return;
    r = timer_arm(services->event, &stream->retry, stream->pause, on_retry, stream);
    if (r < 0)
        failed(stream, VF_ERROR_SOCKET_UNAVAILABLE, strerror(-r));
}

/* ---- Both: a socket that is there already ---- */

static int supply_helper(struct stream *stream, int fd, bool ours, sd_bus_error *error)
{
    union message m = {.qemu = {.channel = MESSAGE_CHANNEL_NEW, .stream = stream->index, .shared = !ours}};
    const char *id = stream->all->entry->identity.id_text;
    int r = helper_side_send(stream->all->helper, MESSAGE_QEMU, &m, fd);

    if (r == -EAGAIN)
        return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                         "Migration %s does not keep up with its sockets. Try again later.", id);
    if (r < 0)
        return error_set(error, VF_ERROR_HELPER_FAILED, "The helper of migration %s does not answer: %s.", id,
                         strerror(-r));
    return 0;
}

int stream_supply(struct stream *stream, int fd, bool ours, sd_bus_error *error)
{
    _cleanup_fd_ int owned = fd;

    if (stream->all->entry->identity.role == ROLE_OUTGOING)
        return supply_helper(stream, fd, ours, error);
    if (queue_put(&stream->supplied, fd_steal(&owned), ours) < 0)
        return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                         "%d sockets of the stream '%s' wait for the source's connections already.",
                         QUEUE_MAX, stream_name(stream));
    if (stream->dialling && try_connect(stream, 0) && stream->retry)
        sd_event_source_set_enabled(stream->retry, SD_EVENT_OFF);
    return 0;
}

void stream_restore_dial(struct stream *stream, int fd, uint32_t channel)
{
    stream_drop_dial(stream);
    stream->dial = fd;
    stream->dial_channel = channel;
}
