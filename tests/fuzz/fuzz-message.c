/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Datagrams between broker and helper, through a real socket: the first byte says the direction, the phase
 * and how many FDs come with it. The table holds, and no descriptor stays open.
 */

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/message.h"
#include "fuzz.h"

static void send_with_fds(int sock, const uint8_t *data, size_t size, size_t n_fds)
{
    union {
        char buf[CMSG_SPACE(16 * sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    struct iovec iov = {(void *)(uintptr_t)data, size};
    struct msghdr mh = {.msg_iov = &iov, .msg_iovlen = 1};
    const int zero = STDIN_FILENO;

    if (n_fds > 0) {
        mh.msg_control = control.buf;
        mh.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        control.align = (struct cmsghdr){CMSG_LEN(n_fds * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
        for (size_t i = 0; i < n_fds; i++)
            memcpy(CMSG_DATA(&control.align) + i * sizeof(int), &zero, sizeof(int));
    }
    MUST(sendmsg(sock, &mh, MSG_NOSIGNAL) == (ssize_t)size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static int pair[2] = {-1, -1};
    union message m;
    int fd = -2, next, r;

    if (pair[0] < 0)
        MUST(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    if (size < 2 || size > 65536)
        return 0;
    next = fcntl(pair[0], F_DUPFD_CLOEXEC, 0); /* the lowest that is free */
    close(next);
    send_with_fds(pair[0], data + 1, size - 1, (data[0] >> 3) % 16);
    r = message_recv(pair[1], data[0] & 1 ? TO_BROKER : TO_HELPER, 1U << ((data[0] >> 1) % 4), &m, &fd);
    MUST(r == 1 || r == -EBADMSG);
    MUST(r == 1 || fd == -1);
    if (r == 1) {
        MUST(strcmp(message_name(m.header.type), "?") != 0);
        MUST(m.header.version == MESSAGE_VERSION);
        MUST((fd >= 0) == ((data[0] >> 3) % 16 == 1));
        message_text_ok(m.log.text, sizeof(m.log.text));
        message_text_ok(m.end.text, sizeof(m.end.text));
    }
    if (fd >= 0)
        close(fd);
    MUST(fcntl(pair[0], F_DUPFD_CLOEXEC, 0) == next);
    close(next);
    return 0;
}
