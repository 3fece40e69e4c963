/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Fails a system call of the broker, or of a library that it uses: nth.h. close(2) is not among them, since a
 * descriptor is gone even where it fails; nor is what waits for children.
 */

#include "nth.h"

#include <dlfcn.h>
#include <sys/epoll.h>

typedef long call(long, long, long, long, long, long);

/*
 * All arguments of these are integers or pointers, so that six words carry them on, whatever they are. The
 * name is given to the assembler alone, for C knows the functions by other types.
 */
#define FAILS_IF(name, error, result, condition)                                             \
    VISIBLE long fail_##name(long a, long b, long c, long d, long e, long f) __asm__(#name); \
    long fail_##name(long a, long b, long c, long d, long e, long f)                         \
    {                                                                                        \
        static call *real;                                                                   \
                                                                                             \
        if (!real)                                                                           \
            *(void **)&real = dlsym(RTLD_NEXT, #name);                                       \
        return (condition) && nth_fails(error) ? (result) : real(a, b, c, d, e, f);          \
    }

#define FAILS(name, error, result) FAILS_IF(name, error, result, true)

FAILS(accept4, EMFILE, -1)
FAILS(access, EACCES, -1)
FAILS(bind, EADDRINUSE, -1)
FAILS(connect, ECONNREFUSED, -1)
FAILS(dup2, EMFILE, -1)
FAILS(epoll_create1, EMFILE, -1)
FAILS_IF(epoll_ctl, ENOSPC, -1, b == EPOLL_CTL_ADD) /* the kernel needs no memory for the others */
FAILS(epoll_wait, EINTR, -1)
FAILS(faccessat, EACCES, -1)
FAILS(fchmodat, EPERM, -1)
FAILS(fchownat, EPERM, -1)
FAILS(fcntl64, EMFILE, -1)
FAILS(flock, ENOLCK, -1)
FAILS(fopen64, EMFILE, 0)
FAILS(fork, EAGAIN, -1)
FAILS(ftruncate64, ENOSPC, -1)
FAILS(getpeername, ENOTCONN, -1)
FAILS(getrandom, ENOSYS, -1)
FAILS(getsockname, ENOBUFS, -1)
FAILS(getsockopt, ENOBUFS, -1)
FAILS(inotify_add_watch, ENOSPC, -1)
FAILS(inotify_init1, EMFILE, -1)
FAILS(listen, EADDRINUSE, -1)
FAILS(memfd_create, EMFILE, -1)
FAILS(mkdir, ENOSPC, -1)
FAILS(mkdirat, ENOSPC, -1)
FAILS(mmap64, ENOMEM, -1)
FAILS(open64, EMFILE, -1)
FAILS(openat64, EMFILE, -1)
FAILS(opendir, EMFILE, 0)
FAILS(pidfd_open, EMFILE, -1)
FAILS(pipe2, EMFILE, -1)
FAILS(poll, EINTR, -1)
FAILS(posix_spawn, EAGAIN, EAGAIN)
FAILS(ppoll, EINTR, -1)
FAILS(prctl, EINVAL, -1)
FAILS(read, EIO, -1)
FAILS(readlinkat, EACCES, -1)
FAILS(readv, EIO, -1)
FAILS(recv, ECONNRESET, -1)
FAILS(recvmsg, ECONNRESET, -1)
FAILS(rename, ENOSPC, -1)
FAILS(rmdir, EBUSY, -1)
FAILS(sendmsg, ENOBUFS, -1)
FAILS(sendto, ENOBUFS, -1)
FAILS(setgroups, EPERM, -1)
FAILS(setresgid, EPERM, -1)
FAILS(setresuid, EPERM, -1)
FAILS(setsockopt, ENOMEM, -1)
FAILS(shutdown, ENOTCONN, -1)
FAILS(signalfd, EMFILE, -1)
FAILS(socket, EMFILE, -1)
FAILS(socketpair, EMFILE, -1)
FAILS(statx, EACCES, -1)
FAILS(timerfd_create, EMFILE, -1)
FAILS(timerfd_settime, ENOMEM, -1)
FAILS(unlink, EACCES, -1)
FAILS(unlinkat, EACCES, -1)
FAILS(write, ENOSPC, -1)
FAILS(writev, EPIPE, -1)
