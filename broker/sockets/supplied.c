/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/sockets/supplied.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "broker/errors.h"
#include "common/cleanup.h"

/*
 * Nothing here waits for the socket's lock, which the caller can hold without end: whatever the kernel copies
 * under it may be in memory that the caller does not let it have (userfaultfd(2), FUSE). So no option is set,
 * and getpeername(2) and poll(2) are for the families where they take no such lock.
 */
static bool is_connected(int fd, int domain, bool unix_only)
{
    /* QEMU may have said all that it has to say, and still listen; a peer that has is lost. */
    const short gone = unix_only ? POLLHUP | POLLERR : POLLRDHUP | POLLHUP | POLLERR;
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    struct sockaddr_un address;
    socklen_t size = sizeof(address);

    if (domain == AF_VSOCK)
        return true; /* the helper sees it */
    if (poll(&p, 1, 0) < 0 || (p.revents & gone))
        return false;
    return domain != AF_UNIX || getpeername(fd, (struct sockaddr *)&address, &size) >= 0;
}

const char *socket_check(int fd, bool unix_only)
{
    socklen_t size = sizeof(int);
    int v = 0, flags = fcntl(fd, F_GETFL);

    if (flags < 0 || (flags & O_PATH))
        return "a descriptor that nothing can be done with (O_PATH)";
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &v, &size) < 0)
        return errno == ENOTSOCK ? "no socket" : "a socket that cannot be used";
    if (v != SOCK_STREAM)
        return "not a stream socket";
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &v, &size) < 0 || v != 0)
        return "a listening socket";
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &v, &size) < 0)
        return "a socket that cannot be used";
    if (v != AF_UNIX && (unix_only || (v != AF_INET && v != AF_INET6 && v != AF_VSOCK)))
        return unix_only ? "not a UNIX socket" : "not a UNIX, TCP or vsock socket";
    return is_connected(fd, v, unix_only) ? NULL : "not connected, or its other end is closed";
}

/* Whether the two are connected to the same socket: a caller's own connection to the bus is as ours. */
static bool same_peer(int a, int b)
{
    struct sockaddr_un of_a = {0}, of_b = {0};
    socklen_t size_a = sizeof(of_a), size_b = sizeof(of_b), size = sizeof(int);
    int domain = 0;

    if (getsockopt(a, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0 || domain != AF_UNIX)
        return false;
    return getpeername(a, (struct sockaddr *)&of_a, &size_a) >= 0 &&
           getpeername(b, (struct sockaddr *)&of_b, &size_b) >= 0 && size_a == size_b &&
           size_a > sizeof(sa_family_t) && memcmp(&of_a, &of_b, size_a) == 0;
}

bool supplied_knows(const struct supplied *supplied, ino_t inode)
{
    for (size_t i = 0; i < supplied->n_seen; i++)
        if (supplied->seen[i] == inode)
            return true;
    return false;
}

int supplied_remember(struct supplied *supplied, int fd)
{
    uint64_t *seen;
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    if (supplied_knows(supplied, st.st_ino))
        return -EEXIST;
    if (supplied->n_seen == SUPPLIED_SEEN_MAX)
        return -ENOBUFS;
    seen = realloc(supplied->seen, (supplied->n_seen + 1) * sizeof(*seen));
    if (!seen)
        return -ENOMEM;
    seen[supplied->n_seen++] = st.st_ino;
    supplied->seen = seen;
    return 0;
}

int supplied_check(int bus_fd, int fd, bool unix_only, sd_bus_error *error)
{
    const char *what = socket_check(fd, unix_only);

    if (!what && same_peer(fd, bus_fd))
        what = "a connection to the bus";
    if (what)
        return error_invalid(error, "The descriptor is %s. Pass a connected stream socket%s.", what,
                             unix_only ? " of the UNIX domain" : "");
    return 0;
}

int supplied_take(struct supplied *supplied, int fd, int *ret, sd_bus_error *error)
{
    _cleanup_fd_ int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    int flags = copy >= 0 ? fcntl(copy, F_GETFL) : -1, r;

    if (flags < 0 || fcntl(copy, F_SETFL, flags | O_NONBLOCK) < 0)
        return -errno;
    r = supplied_remember(supplied, copy);
    if (r == -EEXIST)
        return error_invalid(error, "That socket was given before. Pass each only once.");
    if (r == -ENOBUFS)
        return error_set(error, VF_ERROR_LIMIT_EXCEEDED, "One migration can be given %d sockets.",
                         SUPPLIED_SEEN_MAX);
    if (r < 0)
        return r;
    *ret = fd_steal(&copy);
    return 0;
}

void supplied_forget(struct supplied *supplied, int fd)
{
    struct stat st;
    size_t i;

    if (fstat(fd, &st) < 0)
        return;
    for (i = 0; i < supplied->n_seen; i++)
        if (supplied->seen[i] == st.st_ino) {
            supplied->seen[i] = supplied->seen[--supplied->n_seen];
            return;
        }
}

void supplied_clear(struct supplied *supplied)
{
    free(supplied->seen);
    *supplied = (struct supplied){0};
}
