/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/net/connect-as.h"

#include <errno.h>
#include <sys/un.h>

#include "broker/net/endpoint.h"
#include "broker/sockets/deputy.h"
#include "common/cleanup.h"

const char *path_of_endpoint(const struct endpoint *endpoint)
{
    return endpoint->address.ss_family == AF_UNIX ? ((const struct sockaddr_un *)&endpoint->address)->sun_path
                                                  : NULL;
}

int connect_as(const struct config *config, uid_t uid, const struct endpoint *endpoint)
{
    const char *path = path_of_endpoint(endpoint);
    struct socket_owner owner = {.uid = uid, .only = true};
    struct socket_scope scope;
    _cleanup_fd_ int fd = -1;
    uid_t found;
    int r;

    if (!path || !deputy_is_restricted(uid))
        return endpoint_connect(endpoint);
    r = deputy_scope(config, uid, path, &scope);
    if (r < 0)
        return r;
    fd = qemu_socket_connect(path, &scope);
    if (fd >= 0 && !qemu_socket_peer_is(fd, &owner, &found))
        return -EFOREIGN;
    return fd_steal(&fd);
}
