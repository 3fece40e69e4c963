/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fd-pass.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SO_PASSRIGHTS
#define SO_PASSRIGHTS 83 /* asm-generic/socket.h */
#endif

int fd_pass_send(int sock, const void *data, size_t size, const int *fds, size_t n_fds)
{
    union {
        char buf[CMSG_SPACE(FD_PASS_MAX * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    union {
        const void *from;
        void *to;
    } base = {data}; /* iovec has no const, sendmsg(2) does not write */
    struct iovec iov = {.iov_base = base.to, .iov_len = size};
    struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};

    if (n_fds > FD_PASS_MAX)
        return -EINVAL;
    if (n_fds > 0) {
        struct cmsghdr *cmsg;

        mh.msg_control = control.buf;
        mh.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        cmsg = CMSG_FIRSTHDR(&mh);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds, n_fds * sizeof(int));
    }

    for (;;) {
        ssize_t n = sendmsg(sock, &mh, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (n >= 0)
            return 0; /* SEQPACKET sends all or nothing */
        if (errno != EINTR)
            return -errno;
    }
}

/* Takes the FDs out of one control message; closes those that do not fit. False where one did not. */
static bool take_fds(struct cmsghdr *cmsg, int ret_fds[static FD_PASS_MAX], size_t *n_fds)
{
    size_t n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    bool fits = true;

    for (size_t i = 0; i < n; i++) {
        int fd;

        memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(int));
        if (*n_fds < FD_PASS_MAX) {
            ret_fds[(*n_fds)++] = fd;
        } else {
            close(fd);
            fits = false;
        }
    }
    return fits;
}

ssize_t fd_pass_recv(int sock, int flags, void *data, size_t size, int ret_fds[static FD_PASS_MAX],
                     size_t *ret_n_fds)
{
    /* Room for all that can come (SCM_MAX_FD of unix(7)): what finds none the kernel closes in this call, and
     * a close can wait without end. */
    union {
        char buf[CMSG_SPACE(253 * sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {.iov_base = data, .iov_len = size};
    struct msghdr mh = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.buf,
        .msg_controllen = sizeof(control.buf),
    };
    bool ok = true;
    ssize_t n;

    *ret_n_fds = 0;
    do {
        n = recvmsg(sock, &mh, flags | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;

    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(&mh); cmsg; cmsg = CMSG_NXTHDR(&mh, cmsg)) {
        if (cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS)
            ok = take_fds(cmsg, ret_fds, ret_n_fds) && ok;
        else
            ok = false;
    }
    if (!ok || (mh.msg_flags & (MSG_CTRUNC | MSG_TRUNC))) {
        for (size_t i = 0; i < *ret_n_fds; i++)
            close(ret_fds[i]);
        *ret_n_fds = 0;
        /* There was room for more FDs: it is this process that can have no more. */
        return ok && !(mh.msg_flags & MSG_TRUNC) ? -EMFILE : -EBADMSG;
    }
    return n;
}

void socket_refuse_descriptors(int sock)
{
    const int off = 0;

    setsockopt(sock, SOL_SOCKET, SO_PASSRIGHTS, &off, sizeof(off));
}
