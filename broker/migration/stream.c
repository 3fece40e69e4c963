/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/stream.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "broker/sockets/deputy.h"

const char *stream_name(const struct stream *stream)
{
    return stream->all->options->streams[stream->index];
}

int stream_scope(const struct stream *stream, struct socket_scope *ret)
{
    const struct config *config = stream->all->services->config;
    const struct identity *identity = &stream->all->entry->identity;
    char directory[PATH_MAX];
    int n = snprintf(directory, sizeof(directory), "%s/%s/%s/", config->runtime_dir,
                     role_text(identity->role), identity->key);

    if (strncmp(stream->path, directory, (size_t)n) != 0)
        return deputy_scope(config, identity->uid, stream->path, ret);
    *ret = (struct socket_scope){0};
    if (deputy_is_restricted(identity->uid))
        *ret = (struct socket_scope){.restricted = true, .uid = identity->uid, .beneath = (size_t)n - 1};
    return 0;
}
