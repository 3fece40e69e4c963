/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The system calls that helper/ makes, by -Wl,--wrap: those on descriptors of this world are answered here.
 */

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "common/stats.h"
#include "kernel.h"
#include "qemu.h"
#include "side.h"

#define WRAP(type, name, ...)        \
    type __real_##name(__VA_ARGS__); \
    type __wrap_##name(__VA_ARGS__); \
    type __wrap_##name(__VA_ARGS__)

static ssize_t answer(ssize_t r)
{
    if (r >= 0)
        return r;
    errno = (int)-r;
    return -1;
}

static bool is_interrupted(void)
{
    return chance(kernel.eintr_permille);
}

WRAP(void *, malloc, size_t size)
{
    return fails(FAILS_ALLOCATION) ? NULL : __real_malloc(size);
}

WRAP(void *, calloc, size_t n, size_t size)
{
    return fails(FAILS_ALLOCATION) ? NULL : __real_calloc(n, size);
}

WRAP(int, close, int fd)
{
    return fd < FD_FIRST ? __real_close(fd) : fd_close(fd);
}

WRAP(int, shutdown, int fd, int how)
{
    struct file *file = fd_file(fd);

    conn_shutdown(file->conn, file->end, how != SHUT_WR, how != SHUT_RD);
    return 0;
}

/* What this end of a link reads from, and what it writes to. */
static struct queue *queue_in(struct file *file)
{
    return file->end == 0 ? &file->link->to_helper : &file->link->to_broker;
}

static struct queue *queue_out(struct file *file)
{
    return file->end == 0 ? &file->link->to_broker : &file->link->to_helper;
}

static bool other_is_gone(const struct file *file)
{
    return file->end == 0 ? file->link->broker_gone : file->link->helper_gone;
}

static ssize_t link_receive(struct file *file, struct msghdr *mh)
{
    struct packet *packet = queue_head(queue_in(file));
    size_t size;

    if (!packet)
        return other_is_gone(file) ? 0 : -EAGAIN;
    size = packet->size < mh->msg_iov[0].iov_len ? packet->size : mh->msg_iov[0].iov_len;
    memcpy(mh->msg_iov[0].iov_base, packet->data, size);
    if (packet->file) {
        struct cmsghdr *cmsg = CMSG_FIRSTHDR(mh);
        int fd = fd_new(packet->file);

        packet->file = NULL;
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof(fd));
        memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
        mh->msg_controllen = CMSG_SPACE(sizeof(fd));
    } else {
        mh->msg_controllen = 0;
    }
    queue_drop(queue_in(file));
    return (ssize_t)size;
}

static ssize_t link_send_packet(struct file *file, const struct msghdr *mh)
{
    const struct cmsghdr *cmsg = CMSG_FIRSTHDR(mh);
    struct file *with = NULL;
    int fd, r;

    if (other_is_gone(file))
        return -EPIPE;
    if (cmsg && file->end == 0)
        fault("a helper sent a descriptor");
    if (cmsg) {
        memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
        with = fd_file(fd);
    }
    r = queue_put(queue_out(file), mh->msg_iov[0].iov_base, mh->msg_iov[0].iov_len, with);
    if (r < 0)
        return r;
    if (with)
        with->refs++;
    if (file->end == 0)
        check_message(sim.current, mh->msg_iov[0].iov_base);
    return (ssize_t)mh->msg_iov[0].iov_len;
}

/* Piece by piece; what comes after a piece that came up short was not there. */
static ssize_t each_piece(struct file *file, const struct msghdr *mh, bool sends)
{
    ssize_t n = 0, all = 0;

    for (size_t i = 0; i < mh->msg_iovlen; i++) {
        const struct iovec *iov = &mh->msg_iov[i];

        n = sends ? conn_write(file->conn, file->end, iov->iov_base, iov->iov_len)
                  : conn_read(file->conn, file->end, iov->iov_base, iov->iov_len, false);
        if (n <= 0)
            break;
        all += n;
        if ((size_t)n < iov->iov_len)
            break;
    }
    return all > 0 ? all : n;
}

WRAP(ssize_t, recvmsg, int fd, struct msghdr *mh, int flags)
{
    struct file *file = fd_file(fd);

    mh->msg_flags = 0;
    if (file->kind == FILE_LINK && !queue_head(queue_in(file)))
        mh->msg_controllen = 0;
    if (fails(FAILS_CALL))
        return answer(chance(500) ? -ENOMEM : -ECONNRESET);
    if (is_interrupted())
        return answer(-EINTR);
    return answer(file->kind == FILE_LINK ? link_receive(file, mh) : each_piece(file, mh, false));
}

WRAP(ssize_t, sendmsg, int fd, const struct msghdr *mh, int flags)
{
    struct file *file = fd_file(fd);

    if (fails(FAILS_CALL))
        return answer(chance(500) ? -ENOBUFS : -EPIPE);
    if (is_interrupted())
        return answer(-EINTR);
    return answer(file->kind == FILE_LINK ? link_send_packet(file, mh) : each_piece(file, mh, true));
}

WRAP(ssize_t, recv, int fd, void *data, size_t size, int flags)
{
    struct file *file = fd_file(fd);

    return answer(conn_read(file->conn, file->end, data, size, flags & MSG_PEEK));
}

WRAP(ssize_t, splice, int from, off64_t *unused, int to, off64_t *unused_too, size_t max, unsigned flags)
{
    if (fails(FAILS_CALL))
        return answer(-ENOMEM);
    if (is_interrupted())
        return answer(-EINTR);
    return answer(file_splice(fd_file(from), fd_file(to), max));
}

WRAP(ssize_t, read, int fd, void *data, size_t size)
{
    struct file *file;

    if (fd < FD_FIRST)
        return __real_read(fd, data, size);
    file = fd_file(fd);
    if (file->count == 0)
        return answer(-EAGAIN);
    memcpy(data, &file->count, sizeof(file->count));
    file->count = 0;
    return sizeof(file->count);
}

WRAP(ssize_t, write, int fd, const void *data, size_t size)
{
    if (fd == STDERR_FILENO && sim.current != WORLD)
        return (ssize_t)size; /* its broker is gone, and the log with it */
    if (fd < FD_FIRST)
        return __real_write(fd, data, size);
    fd_file(fd)->count++;
    return (ssize_t)size;
}

static struct watched *watched_find(struct file *epoll, int fd)
{
    for (size_t i = 0; i < epoll->n_watched; i++)
        if (epoll->watched[i].fd == fd)
            return &epoll->watched[i];
    return NULL;
}

WRAP(int, epoll_ctl, int fd, int op, int which, struct epoll_event *event)
{
    struct file *epoll = fd_file(fd);
    struct watched *watched = watched_find(epoll, which);

    if (op == EPOLL_CTL_ADD && fails(FAILS_CALL))
        return (int)answer(chance(500) ? -ENOMEM : -ENOSPC);
    if (op == EPOLL_CTL_ADD && !watched && epoll->n_watched < WATCHED)
        watched = &epoll->watched[epoll->n_watched++];
    else if (op == EPOLL_CTL_ADD || !watched)
        return (int)answer(op == EPOLL_CTL_ADD ? -EEXIST : -ENOENT);
    if (op == EPOLL_CTL_DEL)
        *watched = epoll->watched[--epoll->n_watched];
    else
        *watched = (struct watched){.fd = which, .events = event->events, .tag = event->data.u64};
    return 0;
}

WRAP(int, fcntl64, int fd, int command, ...)
{
    return command == F_GET_SEALS ? F_SEAL_SHRINK : fd_file(fd)->kind == FILE_PIPE ? 65536 : -1;
}

WRAP(off64_t, lseek64, int fd, off64_t offset, int whence)
{
    return sizeof(struct stats);
}

WRAP(void *, mmap64, void *at, size_t size, int protection, int flags, int fd, off64_t offset)
{
    if (fails(FAILS_CALL)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    return side_page(sim.current);
}

WRAP(int, munmap, void *at, size_t size)
{
    return 0;
}

WRAP(int, getpeername, int fd, struct sockaddr *address, socklen_t *size)
{
    return (int)answer(-ENOTCONN);
}

WRAP(int, clock_gettime, clockid_t clock, struct timespec *ret)
{
    ret->tv_sec = (time_t)(sim.now / SECOND);
    ret->tv_nsec = (long)(sim.now % SECOND) * 1000;
    return 0;
}

WRAP(int, gnutls_rnd, gnutls_rnd_level_t level, void *data, size_t size)
{
    if (fails(FAILS_CALL))
        return GNUTLS_E_RANDOM_FAILED;
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)data)[i] = (uint8_t)pick(256);
    return 0;
}

/* A worker may have its lock at any time: then it is at work, and goes on soon. */
WRAP(int, pthread_mutex_trylock, pthread_mutex_t *mutex)
{
    if (sim.current != WORLD && side_worker_is_at_work(mutex))
        return EBUSY;
    return __real_pthread_mutex_trylock(mutex);
}

/* What a migration's end closes was not given up before. */
WRAP(void, channels_quit, struct channels *channels)
{
    qemus_end(true);
    __real_channels_quit(channels);
    qemus_end(false);
}
