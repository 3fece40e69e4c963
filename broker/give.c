/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "give.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/fd-pass.h"
#include "common/give.h"
#include "helper-process.h"
#include "log.h"

/* For its start by systemd. Twice that is below half of WatchdogSec=, for the broker does nothing else
 * meanwhile. */
enum { PATIENCE = 7000 /* ms */ };

void give_begin(struct give *give)
{
    if (give->socket && give->fd < 0)
        give->fd = helper_process_connect(give->socket);
}

void give_end(struct give *give)
{
    fd_closep(&give->fd);
}

/* A negative errno is one of the connection; what the giver says is in *ret. */
static int ask(int fd, int file, const struct give_request *request, int *ret)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    struct give_reply reply;
    ssize_t n;
    int r;

    if (fd < 0)
        return fd;
    r = fd_pass_send(fd, request, sizeof(*request), &file, 1);
    if (r < 0)
        return r;
    do
        r = poll(&p, 1, PATIENCE);
    while (r < 0 && errno == EINTR);
    if (r <= 0)
        return r < 0 ? -errno : -ETIMEDOUT;
    n = recv(fd, &reply, sizeof(reply), MSG_DONTWAIT | MSG_TRUNC);
    if (n < 0)
        return -errno;
    if (n != sizeof(reply))
        return n == 0 ? -ECONNRESET : -EBADMSG;
    *ret = reply.error;
    return 0;
}

int give_to(struct give *give, int file, uid_t uid, gid_t gid)
{
    const struct give_request request = {.version = GIVE_VERSION, .uid = uid, .gid = gid};
    int r, said = 0;

    /* Only where it changes something: an unprivileged broker owns all of its sockets anyway. */
    if (uid == geteuid() && (gid == (gid_t)-1 || gid == getegid()))
        return 0;
    if (!give->socket)
        return fchownat(file, "", uid, gid, AT_EMPTY_PATH) < 0 ? -errno : 0;
    /* A giver that was ended since the last time is started anew, once. */
    for (int i = 0; i < 2; i++) {
        give_begin(give);
        r = ask(give->fd, file, &request, &said);
        if (r >= 0)
            return said > 0 ? -EBADMSG : said;
        give_end(give);
        if (r != -EPIPE && r != -ECONNRESET)
            break;
    }
    log_event(LOG_ERR, NULL, NULL, "No answer from the giver at %s: %s. See vmferry-giver.socket.",
              give->socket, strerror(-r));
    return -ENOLINK;
}
