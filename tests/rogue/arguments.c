/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Each call here is one that a helper needs, in a form that it does not need: what it would be good for
 * stands in docs/threat-model.md. The filter looks at numbers only, so any descriptor does.
 */

#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "deeds.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

static struct sockaddr_in loopback = {.sin_family = AF_INET, .sin_port = 1};

static void try_sendto(void)
{
    sendto(SOCKET_FD, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
}

static void try_sendto_fastopen(void)
{
    sendto(SOCKET_FD, "x", 1, MSG_FASTOPEN | MSG_DONTWAIT, (struct sockaddr *)&loopback, sizeof(loopback));
}

static void send_message(int flags)
{
    char byte = 'x';
    struct iovec iov = {&byte, 1};
    struct msghdr mh = {
        .msg_name = &loopback, .msg_namelen = sizeof(loopback), .msg_iov = &iov, .msg_iovlen = 1};

    sendmsg(SOCKET_FD, &mh, MSG_DONTWAIT | MSG_NOSIGNAL | flags);
}

static void try_sendmsg_fastopen(void)
{
    send_message(MSG_FASTOPEN);
}

static void try_sendmsg_zerocopy(void)
{
    send_message(MSG_ZEROCOPY);
}

static void try_sendmsg_oob(void)
{
    send_message(MSG_OOB);
}

static void receive(int flags)
{
    struct msghdr mh = {0};

    recvmsg(SOCKET_FD, &mh, MSG_DONTWAIT | flags);
}

static void try_recvmsg_errqueue(void)
{
    receive(MSG_ERRQUEUE);
}

static void try_recvmsg_oob(void)
{
    receive(MSG_OOB);
}

static void try_recvfrom_errqueue(void)
{
    char byte;

    recv(SOCKET_FD, &byte, 1, MSG_ERRQUEUE | MSG_DONTWAIT);
}

static void try_shutdown_read(void)
{
    shutdown(SOCKET_FD, SHUT_RD);
}

static void try_splice_offset(void)
{
    loff_t offset = 0;

    splice(SOCKET_FD, &offset, SOCKET_FD, NULL, 1, SPLICE_F_NONBLOCK);
}

static void try_splice_blocking_more(void)
{
    splice(SOCKET_FD, NULL, SOCKET_FD, NULL, 1, SPLICE_F_MORE);
}

static void try_setsockopt_fastopen(void)
{
    int on = 1;

    setsockopt(SOCKET_FD, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof(on));
}

static void try_setsockopt_linger(void)
{
    struct linger linger = {1, 60};

    setsockopt(SOCKET_FD, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

static void try_setsockopt_ulp(void)
{
    setsockopt(SOCKET_FD, IPPROTO_TCP, TCP_ULP, "espintcp", sizeof("espintcp"));
}

static void get_option(int level, int name)
{
    int v = 0;
    socklen_t size = sizeof(v);

    getsockopt(SOCKET_FD, level, name, &v, &size);
}

static void try_getsockopt_pidfd(void)
{
    get_option(SOL_SOCKET, SO_PEERPIDFD);
}

static void try_getsockopt_zerocopy(void)
{
    get_option(IPPROTO_TCP, TCP_ZEROCOPY_RECEIVE);
}

static void try_fcntl_owner(void)
{
    fcntl(SOCKET_FD, F_SETOWN, 1);
}

static void try_fcntl_flags(void)
{
    fcntl(SOCKET_FD, F_SETFL, O_ASYNC);
}

static void try_fcntl_pipe_size(void)
{
    fcntl(SOCKET_FD, F_SETPIPE_SZ, 1 << 20);
}

static void try_lseek_set(void)
{
    lseek(SOCKET_FD, 0, SEEK_SET);
}

static void try_timerfd_cancel(void)
{
    struct itimerspec its = {0};

    timerfd_settime(SOCKET_FD, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &its, NULL);
}

static void try_futex_requeue(void)
{
    static uint32_t word, other;

    syscall(SYS_futex, &word, FUTEX_CMP_REQUEUE_PI | FUTEX_PRIVATE_FLAG, 1, NULL, &other, 0);
}

static void try_futex_lock_pi(void)
{
    static uint32_t word;

    syscall(SYS_futex, &word, FUTEX_LOCK_PI, 0, NULL, NULL, 0);
}

static void try_madvise_mergeable(void)
{
    madvise(NULL, 4096, MADV_MERGEABLE);
}

static void try_mremap_fixed(void)
{
    mremap(NULL, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, &loopback);
}

static void try_sendmmsg(void)
{
    sendmmsg(SOCKET_FD, NULL, 0, MSG_FASTOPEN);
}

static void try_recvmmsg(void)
{
    recvmmsg(SOCKET_FD, NULL, 0, MSG_DONTWAIT, NULL);
}

static void try_sendfile(void)
{
    syscall(SYS_sendfile, SOCKET_FD, SOCKET_FD, NULL, 1);
}

static void try_vmsplice(void)
{
    vmsplice(SOCKET_FD, NULL, 0, SPLICE_F_GIFT);
}

static void try_ioctl(void)
{
    syscall(SYS_ioctl, SOCKET_FD, 0x5421 /* FIONBIO */, &loopback);
}

static void try_prlimit(void)
{
    syscall(SYS_prlimit64, 0, 7 /* RLIMIT_NOFILE */, NULL, NULL);
}

static void try_pidfd_getfd(void)
{
    syscall(SYS_pidfd_getfd, SOCKET_FD, 0, 0);
}

static void try_shutdown_both(void)
{
    shutdown(SOCKET_FD, SHUT_RDWR);
}

static void try_splice(void)
{
    splice(SOCKET_FD, NULL, SOCKET_FD, NULL, 1, SPLICE_F_MOVE | SPLICE_F_NONBLOCK);
}

static void try_setsockopt_tls(void)
{
    setsockopt(SOCKET_FD, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls"));
}

const struct deed arguments[] = {
    {"sendto", try_sendto},
    {"sendto-fastopen", try_sendto_fastopen},
    {"sendmsg-fastopen", try_sendmsg_fastopen},
    {"sendmsg-zerocopy", try_sendmsg_zerocopy},
    {"sendmsg-oob", try_sendmsg_oob},
    {"recvmsg-errqueue", try_recvmsg_errqueue},
    {"recvmsg-oob", try_recvmsg_oob},
    {"recvfrom-errqueue", try_recvfrom_errqueue},
    {"shutdown-read", try_shutdown_read},
    {"splice-offset", try_splice_offset},
    {"splice-more", try_splice_blocking_more},
    {"setsockopt-fastopen", try_setsockopt_fastopen},
    {"setsockopt-linger", try_setsockopt_linger},
    {"setsockopt-ulp", try_setsockopt_ulp},
    {"getsockopt-pidfd", try_getsockopt_pidfd},
    {"getsockopt-zerocopy", try_getsockopt_zerocopy},
    {"fcntl-owner", try_fcntl_owner},
    {"fcntl-flags", try_fcntl_flags},
    {"fcntl-pipe-size", try_fcntl_pipe_size},
    {"lseek-set", try_lseek_set},
    {"timerfd-cancel", try_timerfd_cancel},
    {"futex-requeue", try_futex_requeue},
    {"futex-lock-pi", try_futex_lock_pi},
    {"madvise-mergeable", try_madvise_mergeable},
    {"mremap-fixed", try_mremap_fixed},
    {"sendmmsg", try_sendmmsg},
    {"recvmmsg", try_recvmmsg},
    {"sendfile", try_sendfile},
    {"vmsplice", try_vmsplice},
    {"ioctl", try_ioctl},
    {"prlimit", try_prlimit},
    {"pidfd-getfd", try_pidfd_getfd},
    {0},
};

const struct deed gate_arguments[] = {
    {"gate-shutdown-both", try_shutdown_both},
    {"gate-splice", try_splice},
    {"gate-setsockopt-tls", try_setsockopt_tls},
    {0},
};
