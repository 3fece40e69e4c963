/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "giver.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fd-pass.h"
#include "common/give.h"

/* Whether it is what the broker makes: a socket's name or a directory, of its user, for nobody else yet. An
 * open socket is none, though it says S_ISSOCK: its owner counts for the kernel, too. sock is one itself, and
 * all of them are on one device. */
static int check(int file, int sock, uid_t from)
{
    struct stat st, open_socket;

    if (fstat(file, &st) < 0 || fstat(sock, &open_socket) < 0)
        return -errno;
    if (st.st_uid != from || st.st_dev == open_socket.st_dev || (st.st_mode & 07007) != 0)
        return -EPERM;
    return S_ISDIR(st.st_mode) || (S_ISSOCK(st.st_mode) && st.st_nlink == 1) ? 0 : -EPERM;
}

static int give_away(int file, int sock, uid_t from, const struct give_request *request)
{
    int r;

    if (request->uid == (uid_t)-1)
        return -EINVAL;
    r = check(file, sock, from);
    if (r < 0)
        return r;
    return fchownat(file, "", request->uid, request->gid, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

/* One request and its reply. 1, 0 at the end, or a negative errno: what came is no request. */
static int serve_one(int sock, uid_t from)
{
    struct pollfd p = {.fd = sock, .events = POLLIN};
    struct give_request request;
    struct give_reply reply;
    int fds[FD_PASS_MAX];
    _cleanup_fd_ int file = -1;
    size_t n_fds;
    ssize_t n;

    if (poll(&p, 1, -1) < 0)
        return -errno;
    n = fd_pass_recv(sock, 0, &request, sizeof(request), fds, &n_fds);
    if (n_fds > 0)
        file = fds[0];
    if (n <= 0)
        return (int)n;
    if (n != sizeof(request) || n_fds != 1 || request.version != GIVE_VERSION)
        return -EBADMSG;
    reply = (struct give_reply){.error = give_away(file, sock, from, &request)};
    n = fd_pass_send(sock, &reply, sizeof(reply), NULL, 0);
    return n < 0 ? (int)n : 1;
}

int giver_serve(int sock)
{
    struct ucred from;
    socklen_t size = sizeof(from);
    int r;

    if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &from, &size) < 0)
        return -errno;
    do
        r = serve_one(sock, from.uid);
    while (r > 0);
    return r == -EPIPE || r == -ECONNRESET ? 0 : r;
}
