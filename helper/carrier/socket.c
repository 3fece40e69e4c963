/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/carrier/socket.h"

#include <errno.h>
#include <sys/socket.h>

ssize_t socket_recv(int fd, struct iovec *iov, int n_iov)
{
    struct msghdr mh = {.msg_iov = iov, .msg_iovlen = (size_t)n_iov};
    ssize_t n;

    /* MSG_DONTWAIT besides O_NONBLOCK: another process that holds the socket may flip the flag at any time.
     */
    do {
        n = recvmsg(fd, &mh, MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

ssize_t socket_send(int fd, struct iovec *iov, int n_iov)
{
    struct msghdr mh = {.msg_iov = iov, .msg_iovlen = (size_t)n_iov};
    ssize_t n;

    do {
        n = sendmsg(fd, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}
