/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/stream.h"

#include <string.h>

#include "broker/sockets/deputy.h"

const char *stream_name(const struct stream *stream)
{
    return stream->all->options->streams[stream->index];
}

int stream_scope(const struct stream *stream, struct socket_scope *ret)
{
    const struct streams *all = stream->all;
    const struct identity *identity = &all->entry->identity;
    size_t n = all->directory ? strlen(all->directory) : 0;

    if (n == 0 || strncmp(stream->path, all->directory, n) != 0 || stream->path[n] != '/')
        return deputy_scope(all->services->config, identity->uid, stream->path, ret);
    *ret = (struct socket_scope){0};
    if (deputy_is_restricted(identity->uid))
        *ret = (struct socket_scope){.restricted = true, .uid = all->owner.uid, .beneath = n};
    return 0;
}
