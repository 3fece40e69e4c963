/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/sockets/deputy.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "broker/bus/authorize.h"
#include "broker/errors.h"
#include "common/cleanup.h"

/* An allowed directory with the uid in it; false where that is too long for any socket. */
static bool expand(const char *text, uid_t uid, char ret[static QEMU_SOCKET_PATH_MAX])
{
    size_t n = 0;

    for (const char *p = text; *p; p++) {
        int r = p[0] == '%' ? snprintf(ret + n, QEMU_SOCKET_PATH_MAX - n, "%u", uid)
                            : snprintf(ret + n, QEMU_SOCKET_PATH_MAX - n, "%c", *p);

        n += (size_t)r;
        if (n >= QEMU_SOCKET_PATH_MAX)
            return false;
        p += p[0] == '%'; /* U */
    }
    return true;
}

int deputy_scope(const struct config *config, uid_t uid, const char *path, struct socket_scope *ret)
{
    char directory[QEMU_SOCKET_PATH_MAX];

    *ret = (struct socket_scope){0};
    if (!authorize_is_restricted(uid))
        return 1;
    for (size_t i = 0; i < config->allowed.n; i++) {
        size_t n;

        if (!expand(config->allowed.items[i], uid, directory))
            continue;
        n = strcmp(directory, "/") == 0 ? 0 : strlen(directory);
        if (strncmp(path, directory, n) == 0 && path[n] == '/') {
            *ret = (struct socket_scope){.restricted = true, .uid = uid, .beneath = n};
            return 0;
        }
    }
    return -EOUTSIDE;
}

const char *deputy_why(int r)
{
    switch (r) {
    case -ELOOP:
        return "a symbolic link is on the way. Give the path without links.";
    case -EXDEV:
        return "it leads out of the allowed directory, or over a mount point in it (AllowedDirectories=).";
    case -EFOREIGN:
        return "it, or the directory that it is in, does not belong to the caller.";
    case -EOUTSIDE:
        return "it is in none of the directories where a caller other than root can name sockets "
               "(AllowedDirectories=).";
    default:
        return NULL;
    }
}

static int check_path(const struct config *config, uid_t uid, const char *option, const char *path,
                      sd_bus_error *error)
{
    struct socket_scope scope;
    int r = deputy_scope(config, uid, path, &scope);

    if (r >= 0)
        return 0;
    return error_set(error, VF_ERROR_PATH_NOT_ALLOWED, "Option '%s': uid %u may not name %s: %s", option, uid,
                     path, deputy_why(r));
}

int deputy_check(const struct config *config, uid_t uid, const struct options *options, sd_bus_error *error)
{
    int r = 0;

    if (!authorize_is_restricted(uid))
        return 0;
    if (options->has_owner && (options->owner_uid != uid || options->has_group))
        return error_denied(
            error,
            "Option 'socket-owner': uid %u can have sockets for itself only. Leave the option "
            "out, or call as root.",
            uid);
    for (uint32_t i = 0; r >= 0 && i < options->n_streams; i++)
        if (options->sockets[i] && options->sockets[i][0] != '\0')
            r = check_path(config, uid, "sockets", options->sockets[i], error);
    return r;
}

/* The path of a UNIX socket's endpoint; NULL for another one. */
static const char *path_of(const struct endpoint *endpoint)
{
    return endpoint->address.ss_family == AF_UNIX ? ((const struct sockaddr_un *)&endpoint->address)->sun_path
                                                  : NULL;
}

int deputy_check_endpoints(const struct config *config, uid_t uid, const struct options *options,
                           sd_bus_error *error)
{
    struct endpoint endpoint;
    const char *path = NULL;
    struct socket_scope scope;

    for (uint32_t i = 0; i < options->n_endpoints; i++) {
        if (endpoint_parse(options->endpoints[i], &endpoint))
            continue;
        path = path_of(&endpoint);
        if (!path || deputy_scope(config, uid, path, &scope) >= 0)
            return 0;
    }
    if (!path)
        return 0;
    return error_set(error, VF_ERROR_PATH_NOT_ALLOWED,
                     "The endpoint is a path that uid %u may not name, %s: %s", uid, path,
                     deputy_why(-EOUTSIDE));
}

int deputy_connect(const struct config *config, uid_t uid, const struct endpoint *endpoint)
{
    const char *path = path_of(endpoint);
    struct socket_owner owner = {.uid = uid, .only = true};
    struct socket_scope scope;
    _cleanup_fd_ int fd = -1;
    uid_t found;
    int r;

    if (!path || !authorize_is_restricted(uid))
        return endpoint_connect(endpoint);
    r = deputy_scope(config, uid, path, &scope);
    if (r < 0)
        return r;
    fd = qemu_socket_connect(path, &scope);
    if (fd >= 0 && !qemu_socket_peer_is(fd, &owner, &found))
        return -EFOREIGN;
    return fd_steal(&fd);
}
