/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/streams.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/errors.h"
#include "broker/migration/log.h"
#include "broker/migration/stored-names.h"
#include "broker/migration/stream-dial.h"
#include "broker/migration/stream-listen.h"
#include "broker/sockets/give.h"
#include "common/cleanup.h"

void streams_init(struct streams *streams, const struct migration_services *services, struct entry *entry,
                  const struct options *options, struct helper_side *helper, const struct socket_owner *owner)
{
    *streams = (struct streams){
        .services = services, .entry = entry, .options = options, .helper = helper, .owner = *owner};
    for (uint32_t i = 0; i < MESSAGE_STREAMS_MAX; i++) {
        struct stream *stream = &streams->each[i];

        *stream = (struct stream){.all = streams, .index = i, .listener = -1, .dial = -1};
        queue_init(&stream->supplied, entry, helper, KEPT_FOR_QEMU, i);
    }
}

/* Where the sockets are that the caller named no path for. libvirt has one path for both hosts: there the
 * name is the ticket's id, whichever the role. */
static void directory_of(const struct streams *streams, char ret[static PATH_MAX])
{
    const struct identity *identity = &streams->entry->identity;
    const struct config *config = streams->services->config;

    if (streams->options->layout[0] != '\0')
        snprintf(ret, PATH_MAX, "%s/%s", config->libvirt_dir, identity->id_text);
    else
        snprintf(ret, PATH_MAX, "%s/%s/%s", config->runtime_dir, role_text(identity->role), identity->key);
}

static int make_directory(struct streams *streams, const char *path, sd_bus_error *error)
{
    int r = qemu_socket_make_directory(path, &streams->owner, streams->services->give);

    if (r == -EEXIST)
        return error_set(
            error, VF_ERROR_SOCKET_UNAVAILABLE,
            "The directory %s is there already: a migration of this id to or from this host is not "
            "over, or has left something in it.",
            path);
    if (r < 0)
        return error_set(error, VF_ERROR_SOCKET_UNAVAILABLE, "Cannot make the directory %s for uid %u: %s.",
                         path, streams->owner.uid, give_why(r));
    streams->directory = strdup(path);
    return streams->directory ? 0 : -ENOMEM;
}

/* Those that the caller gave, or in a directory of the migration's own; libvirt's own calls have none. */
static int make_paths(struct streams *streams, sd_bus_error *error)
{
    const struct options *options = streams->options;
    bool needs_directory = false;
    char directory[PATH_MAX];
    int r;

    directory_of(streams, directory);
    for (uint32_t i = 0; i < options->n_streams; i++) {
        const char *given = strcmp(options->streams[i], STREAM_LIBVIRT) == 0 ? "" : options->sockets[i];
        char path[PATH_MAX + MESSAGE_STREAM_MAX + sizeof(LAYOUT_INFIX) + LAYOUT_NAME_MAX];

        if (given)
            snprintf(path, sizeof(path), "%s", given);
        else if (options->layout[0] != '\0')
            snprintf(path, sizeof(path), "%s/%s" LAYOUT_INFIX "%s", directory, options->streams[i],
                     options->layout);
        else
            snprintf(path, sizeof(path), "%s/%s.sock", directory, options->streams[i]);
        r = options->layout[0] != '\0' ? options_check_layout(path, options, error)
                                       : options_check_path(path, options->streams[i], error);
        if (r < 0)
            return r;
        strcpy(streams->each[i].path, path);
        needs_directory = needs_directory || !given;
    }
    return needs_directory ? make_directory(streams, directory, error) : 0;
}

int streams_open(struct streams *streams, sd_bus_error *error)
{
    int r = make_paths(streams, error);

    if (streams->entry->identity.role == ROLE_OUTGOING)
        for (uint32_t i = 0; r >= 0 && i < streams->options->n_streams; i++)
            r = stream_listen(&streams->each[i], error);
    return r;
}

/* ---- In the FD store ---- */

static void listener_name(const struct streams *streams, uint32_t index, char ret[static STORE_NAME_MAX])
{
    stored_name(&streams->entry->identity, ret, "listen.%" PRIu32, index);
}

void streams_store(const struct streams *streams)
{
    char name[STORE_NAME_MAX];

    for (uint32_t i = 0; i < streams->options->n_streams; i++) {
        listener_name(streams, i, name);
        store_put(streams->services->store, name, streams->each[i].listener, 0);
    }
}

void streams_restore(struct streams *streams)
{
    char name[STORE_NAME_MAX];

    for (uint32_t i = 0; i < streams->options->n_streams; i++) {
        struct stream *stream = &streams->each[i];
        int r;

        listener_name(streams, i, name);
        stream->listener = store_take(streams->services->store, name);
        r = stream->listener >= 0 ? stream_accept(stream) : 0;
        if (r < 0)
            migration_log(&streams->entry->identity, LOG_ERR, NULL, "Cannot accept on %s any more: %s.",
                          stream->path, strerror(-r));
    }
}

bool streams_restore_one(struct streams *streams, const char *name, const char *what, int *ret_fd)
{
    struct store *store = streams->services->store;
    uint32_t index = 0, number = 0;
    char end;
    bool ours = sscanf(what, "ours.%" SCNu32 ".%" SCNu32 "%c", &index, &number, &end) == 2;
    bool theirs = sscanf(what, "sock.%" SCNu32 ".%" SCNu32 "%c", &index, &number, &end) == 2;
    bool dial = sscanf(what, "dial.%" SCNu32 ".%" SCNu32 "%c", &index, &number, &end) == 2;
    int fd;

    *ret_fd = -1;
    if ((!ours && !theirs && !dial) || index >= streams->options->n_streams)
        return false;
    fd = store_take(store, name);
    if (dial) {
        stream_restore_dial(&streams->each[index], fd, number);
        return true;
    }
    store_remove(store, name, fd);
    if (queue_put(&streams->each[index].supplied, fd, ours) >= 0 && theirs)
        *ret_fd = fd;
    return true;
}

/* ---- The end ---- */

static void stream_close(struct stream *stream)
{
    struct store *store = stream->all->services->store;
    struct socket_scope scope;
    char name[STORE_NAME_MAX];

    stream->accept = sd_event_source_disable_unref(stream->accept);
    stream->retry = sd_event_source_disable_unref(stream->retry);
    stream->dialling = false;
    stream_drop_dial(stream);
    if (stream->listener >= 0 && !store_frozen(store)) {
        if (stream_scope(stream, &scope) >= 0)
            qemu_socket_unlink(stream->path, &scope);
        listener_name(stream->all, stream->index, name);
        store_remove(store, name, stream->listener);
    }
    fd_closep(&stream->listener);
    queue_clear(&stream->supplied);
}

/* An incoming one's sockets are QEMU's, which may have left them. */
static void remove_directory(const struct streams *streams)
{
    for (uint32_t i = 0; i < streams->options->n_streams; i++)
        qemu_socket_remove_in(streams->directory, streams->each[i].path);
    if (!qemu_socket_remove_directory(streams->directory))
        migration_log(&streams->entry->identity, LOG_NOTICE, NULL,
                      "%s stays: there is something in it that vmferryd has not made.", streams->directory);
}

void streams_close(struct streams *streams)
{
    for (uint32_t i = 0; i < MESSAGE_STREAMS_MAX; i++)
        stream_close(&streams->each[i]);
    if (streams->directory && !store_frozen(streams->services->store))
        remove_directory(streams);
    free(streams->directory);
    streams->directory = NULL;
}
