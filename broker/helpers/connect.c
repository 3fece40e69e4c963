/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/helpers/connect.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/cleanup.h"

int connect_unit(const char *path)
{
    union {
        struct sockaddr any;
        struct sockaddr_un un;
    } address = {.un.sun_family = AF_UNIX};
    static const int on = 1;

    if (strlen(path) >= sizeof(address.un.sun_path))
        return -ENAMETOOLONG;
    strcpy(address.un.sun_path, path);
    _cleanup_fd_ int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0 ||
        connect(fd, &address.any, sizeof(address.un)) < 0)
        return -errno;
    return fd_steal(&fd);
}
