/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/options.h"

#include <stdlib.h>
#include <string.h>

#include "broker/errors.h"
#include "broker/sockets/qemu-socket.h"

void options_clear(struct options *options)
{
    for (uint32_t i = 0; i < MESSAGE_STREAMS_MAX; i++)
        free(options->sockets[i]);
    free(options->client_id);
    free(options->tied_to);
    *options = (struct options){0};
}

int options_stream(const struct options *options, const char *name)
{
    for (uint32_t i = 0; i < options->n_streams; i++)
        if (strcmp(options->streams[i], name) == 0)
            return (int)i;
    return -1;
}

int options_check_path(const char *path, const char *stream, sd_bus_error *error)
{
    if (strlen(path) < QEMU_SOCKET_PATH_MAX)
        return 0;
    return error_set(
        error, VF_ERROR_PATH_TOO_LONG,
        "The socket path '%.200s' of the stream '%s' has %zu bytes; UNIX sockets allow %d. Give a "
        "shorter one in 'sockets'.",
        path, stream, strlen(path), QEMU_SOCKET_PATH_MAX - 1);
}

int options_check_layout(const char *path, const struct options *options, sd_bus_error *error)
{
    size_t n = strlen(path), name = strlen(options->layout);

    if (n < QEMU_SOCKET_PATH_MAX)
        return 0;
    return error_set(
        error, VF_ERROR_PATH_TOO_LONG,
        "The socket path '%s' has %zu bytes; UNIX sockets allow %d, so that a domain's name can have "
        "%zu here. Migrate the domain under a shorter name (vmferryctl migrate --name=, virsh migrate "
        "--dname).",
        path, n, QEMU_SOCKET_PATH_MAX - 1, name - (n - (QEMU_SOCKET_PATH_MAX - 1)));
}
