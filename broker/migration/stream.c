/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/migration.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "broker/log.h"
#include "broker/migration/pipes.h"
#include "broker/migration/quota.h"
#include "broker/sockets/deputy.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/timer.h"

enum {
    PAUSE_FIRST = 5000,   /* µs between the tries to connect to QEMU, doubled up to */
    PAUSE_MAX = 250000,   /* this */
    ACCEPT_PAUSE = 50000, /* µs without accepting when there are no FDs left */
};

static const char *stream_name(const struct stream *stream)
{
    return stream->migration->options.streams[stream->index];
}

/* What its path may lead to: what is in the directory made for its migration; else one that the caller named,
 * as he may. */
static int scope_of(const struct stream *stream, struct socket_scope *ret)
{
    const struct migration *migration = stream->migration;
    const struct config *config = migration->manager->config;
    char directory[PATH_MAX];
    int n = snprintf(directory, sizeof(directory), "%s/%s/%s/", config->runtime_dir,
                     migration_role_text(migration), migration->id_text);

    if (strncmp(stream->path, directory, (size_t)n) != 0)
        return deputy_scope(config, migration->uid, stream->path, ret);
    *ret = (struct socket_scope){0};
    if (deputy_is_restricted(migration->uid))
        *ret = (struct socket_scope){.restricted = true, .uid = migration->uid, .beneath = (size_t)n - 1};
    return 0;
}

/* ---- Outgoing: QEMU connects ---- */

static int on_accept_again(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct stream *stream = userdata;

    (void)source;
    (void)usec;
    sd_event_source_set_enabled(stream->accept, SD_EVENT_ON);
    return 0;
}

/* Level-triggered, an accept that fails for want of FDs would spin. */
static void pause_accepting(struct stream *stream)
{
    stream->retry = sd_event_source_disable_unref(stream->retry);
    if (sd_event_add_time_relative(stream->migration->manager->event, &stream->retry, CLOCK_MONOTONIC,
                                   ACCEPT_PAUSE, 0, on_accept_again, stream) >= 0)
        sd_event_source_set_enabled(stream->accept, SD_EVENT_OFF);
}

static int on_accept(sd_event_source *source, int listener, uint32_t revents, void *userdata)
{
    struct stream *stream = userdata;
    struct migration *migration = stream->migration;
    _cleanup_fd_ int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    union message m = {.qemu = {.channel = MESSAGE_CHANNEL_NEW, .stream = stream->index}};
    char why[QUOTA_WHY_MAX];
    uid_t uid;

    (void)source;
    (void)revents;
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
            pause_accepting(stream);
        return 0;
    }
    if (!qemu_socket_peer_is(fd, &stream->migration->owner, &uid)) {
        if (log_sample(&migration->n_strangers))
            migration_log(migration, LOG_WARNING, NULL,
                          "A connection to %s by uid %u was closed: it belongs to uid %u (socket-owner).",
                          stream->path, uid, migration->owner.uid);
        return 0;
    }
    if (quota_admit(migration, 1, why) < 0) {
        if (log_sample(&migration->n_over_quota))
            log_event(LOG_WARNING, migration->id_text, migration->vm, "A connection to %s was closed: %s",
                      stream->path, why);
        return 0;
    }
    /* What cannot be passed on is closed, and QEMU learns it by that. */
    helper_link_send(migration->helper, MESSAGE_QEMU, &m, fd);
    return 0;
}

int stream_listen(struct stream *stream, sd_bus_error *error)
{
    struct migration *migration = stream->migration;
    struct socket_scope scope;
    int r;

    if (stream->path[0] == '\0')
        return 0; /* its sockets come by OpenStream and AddStream */

    r = scope_of(stream, &scope);
    stream->listener =
        r < 0 ? r : qemu_socket_listen(stream->path, &scope, &migration->owner, &migration->manager->give);
    if (stream->listener < 0) {
        r = stream->listener;
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
    return stream_accept(stream);
}

int stream_accept(struct stream *stream)
{
    return sd_event_add_io(stream->migration->manager->event, &stream->accept, stream->listener, EPOLLIN,
                           on_accept, stream);
}

/* ---- Incoming: we connect ---- */

static void dial_name(const struct stream *stream, char ret[static STORE_NAME_MAX])
{
    migration_store_name(stream->migration, ret, "dial.%u.%u", stream->index, stream->dial_channel);
}

static void drop_dial(struct stream *stream)
{
    char name[STORE_NAME_MAX];

    if (stream->dial < 0)
        return;
    dial_name(stream, name);
    store_remove(stream->migration->manager->store, name);
    fd_closep(&stream->dial);
}

/* A connection to QEMU that a dead broker takes with it would be QEMU's end. So it is stored before it is
 * one. */
static int make_dial(struct stream *stream)
{
    char name[STORE_NAME_MAX];

    if (stream->dial >= 0 && stream->dial_channel == stream->channel)
        return 0;
    drop_dial(stream);
    stream->dial = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (stream->dial < 0)
        return -errno;
    stream->dial_channel = stream->channel;
    qemu_socket_tune(stream->dial);
    dial_name(stream, name);
    migration_store_socket(stream->migration, name, stream->dial);
    return 0;
}

/* 0 when it is connected. */
static int dial(struct stream *stream, const struct socket_scope *scope)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof(address);
    int r = make_dial(stream);

    if (r < 0 || getpeername(stream->dial, (struct sockaddr *)&address, &size) >= 0)
        return r;
    return qemu_socket_connect_by(stream->dial, stream->path, scope);
}

static void connected(struct stream *stream, int fd, bool ours)
{
    union message m = {.qemu = {.channel = stream->channel, .stream = stream->index, .shared = !ours}};

    if (ours)
        pipes_give(stream->migration, stream->channel);
    stream->dialling = false;
    migration_answer(stream->migration, MESSAGE_QEMU, &m, fd);
    drop_dial(stream);
}

static void failed(struct stream *stream, enum vf_error error, const char *why)
{
    union message m = {.qemu_failed = {.channel = stream->channel, .stream = stream->index, .error = error}};
    char text[MESSAGE_TEXT_MAX + 256];

    stream->dialling = false;
    snprintf(text, sizeof(text), "Cannot connect to the destination QEMU's socket %s (stream '%s'): %s",
             stream->path, stream_name(stream), why);
    message_text_set(m.qemu_failed.text, sizeof(m.qemu_failed.text), text);
    migration_answer(stream->migration, MESSAGE_QEMU_FAILED, &m, -1);
    drop_dial(stream);
}

/* The name in the FD store of a socket that was supplied and waits to be needed. */
static void supplied_name(const struct stream *stream, size_t i, char ret[static STORE_NAME_MAX])
{
    migration_store_name(stream->migration, ret, "%s.%u.%u", stream->supplied[i].ours ? "ours" : "sock",
                         stream->index, stream->supplied[i].number);
}

/* The oldest that waits; the caller's. */
static int take_supplied(struct stream *stream, bool *ret_ours)
{
    char name[STORE_NAME_MAX];
    int fd = stream->supplied[0].fd;

    *ret_ours = stream->supplied[0].ours;
    supplied_name(stream, 0, name);
    store_remove(stream->migration->manager->store, name);
    memmove(stream->supplied, stream->supplied + 1, --stream->n_supplied * sizeof(stream->supplied[0]));
    return fd;
}

/* One try: true when that settled it. */
static bool try_connect(struct stream *stream, uint64_t now)
{
    struct socket_scope scope;
    char why[256];
    uid_t uid = (uid_t)-1;
    int r;

    if (stream->n_supplied > 0) {
        bool ours;
        _cleanup_fd_ int fd = take_supplied(stream, &ours);

        connected(stream, fd, ours);
        return true;
    }
    if (stream->path[0] == '\0') {
        if (now < stream->deadline)
            return false;
        failed(stream, VF_ERROR_SOCKET_UNAVAILABLE,
               "it has no path, and nobody gave its socket by OpenStream or AddStream in time.");
        return true;
    }
    r = scope_of(stream, &scope);
    if (r >= 0)
        r = dial(stream, &scope);
    if (r >= 0 && !qemu_socket_peer_is(stream->dial, &stream->migration->owner, &uid)) {
        snprintf(why, sizeof(why),
                 "the process that listens there runs as uid %u, not as uid %u (socket-owner).", uid,
                 stream->migration->owner.uid);
        failed(stream, VF_ERROR_PATH_NOT_ALLOWED, why);
        return true;
    }
    if (r >= 0) {
        connected(stream, stream->dial, true);
        return true;
    }
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
    struct migration *migration = stream->migration;
    char why[QUOTA_WHY_MAX];
    uint64_t now;
    int r;

    stream->channel = channel;
    if (quota_admit(migration, 0, why) < 0) { /* this one is counted already */
        failed(stream, VF_ERROR_LIMIT_EXCEEDED, why);
        return;
    }
    now = turn_now(migration->manager->event);
    stream->dialling = true;
    stream->deadline = now + migration->manager->config->qemu_timeout;
    stream->pause = PAUSE_FIRST;
    if (try_connect(stream, now))
        return;
    r = timer_arm(migration->manager->event, &stream->retry, stream->pause, on_retry, stream);
    if (r < 0)
        failed(stream, VF_ERROR_SOCKET_UNAVAILABLE, strerror(-r));
}

/* ---- Both: a socket that is there already ---- */

int stream_supply(struct stream *stream, int fd, bool ours, sd_bus_error *error)
{
    struct migration *migration = stream->migration;
    union message m = {.qemu = {.channel = MESSAGE_CHANNEL_NEW, .stream = stream->index, .shared = !ours}};
    _cleanup_fd_ int owned = fd;
    char name[STORE_NAME_MAX];
    int r;

    if (migration->role == ROLE_OUTGOING) {
        r = helper_link_send(migration->helper, MESSAGE_QEMU, &m, fd);
        if (r == -EAGAIN)
            return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                             "Migration %s does not keep up with its sockets. Try again later.",
                             migration->id_text);
        if (r < 0)
            return error_set(error, VF_ERROR_HELPER_FAILED, "The helper of migration %s does not answer: %s.",
                             migration->id_text, strerror(-r));
        return 0;
    }
    if (stream->n_supplied == SUPPLIED_MAX)
        return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                         "%d sockets of the stream '%s' wait for the source's connections already.",
                         SUPPLIED_MAX, stream_name(stream));
    stream->supplied[stream->n_supplied].ours = ours;
    stream->supplied[stream->n_supplied].number = ++migration->supplied_number;
    stream->supplied[stream->n_supplied].fd = fd_steal(&owned);
    supplied_name(stream, stream->n_supplied++, name);
    migration_store_socket(migration, name, fd);
    if (stream->dialling && try_connect(stream, 0) && stream->retry)
        sd_event_source_set_enabled(stream->retry, SD_EVENT_OFF);
    return 0;
}

void stream_restore(struct stream *stream, int fd, bool ours, uint32_t number)
{
    _cleanup_fd_ int owned = fd;

    if (stream->n_supplied == SUPPLIED_MAX)
        return;
    if (!ours)
        supplied_remember(&stream->migration->supplied, fd); /* none may come twice to us, either */
    stream->supplied[stream->n_supplied].ours = ours;
    stream->supplied[stream->n_supplied].number = number;
    stream->supplied[stream->n_supplied++].fd = fd_steal(&owned);
}

void stream_restore_dial(struct stream *stream, int fd, uint32_t channel)
{
    drop_dial(stream);
    stream->dial = fd;
    stream->dial_channel = channel;
}

void stream_close(struct stream *stream)
{
    struct store *store = stream->migration->manager->store;
    struct socket_scope scope;

    stream->accept = sd_event_source_disable_unref(stream->accept);
    stream->retry = sd_event_source_disable_unref(stream->retry);
    stream->dialling = false;
    drop_dial(stream);
    if (stream->listener >= 0 && !store_frozen(store)) {
        char name[STORE_NAME_MAX];

        if (scope_of(stream, &scope) >= 0)
            qemu_socket_unlink(stream->path, &scope);
        migration_store_name(stream->migration, name, "listen.%u", stream->index);
        store_remove(store, name);
    }
    fd_closep(&stream->listener);
    while (stream->n_supplied > 0) {
        bool ours;
        _cleanup_fd_ int fd = take_supplied(stream, &ours);
    }
}

/* The paths of its sockets: those that the caller gave, or in a directory of its own. */
int streams_make_paths(struct migration *migration, sd_bus_error *error)
{
    const char *runtime_dir = migration->manager->config->runtime_dir;
    bool needs_directory = false;
    int r;

    for (uint32_t i = 0; i < migration->options.n_streams; i++) {
        const char *given = migration->options.sockets[i], *stream = migration->options.streams[i];
        char path[PATH_MAX];

        if (given)
            snprintf(path, sizeof(path), "%s", given);
        else
            snprintf(path, sizeof(path), "%s/%s/%s/%s.sock", runtime_dir, migration_role_text(migration),
                     migration->id_text, stream);
        r = options_check_path(path, stream, error);
        if (r < 0)
            return r;
        strcpy(migration->streams[i].path, path);
        needs_directory = needs_directory || !given;
    }
    if (!needs_directory)
        return 0;
    if (asprintf(&migration->directory, "%s/%s/%s", runtime_dir, migration_role_text(migration),
                 migration->id_text) < 0) {
        migration->directory = NULL;
        return -ENOMEM;
    }
    r = qemu_socket_make_directory(migration->directory, &migration->owner, &migration->manager->give);
    if (r < 0) {
        r = error_set(error, VF_ERROR_SOCKET_UNAVAILABLE, "Cannot make the directory %s for uid %u: %s.",
                      migration->directory, migration->owner.uid, give_why(r));
        free(migration->directory);
        migration->directory = NULL;
    }
    return r;
}
