/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/sockets/give.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/helpers/connect.h"
#include "broker/log.h"
#include "common/cleanup.h"
#include "common/clock.h"
#include "common/fd-pass.h"
#include "common/give.h"

/* The broker does nothing else meanwhile, and must stay below half of WatchdogSec=. */
enum {
    PATIENCE_FIRST = 7000, /* ms, for its start by systemd */
    PATIENCE = 3000,
    SILENCE = 30000, /* after one that did not answer */
};

void give_init(struct give *give, const char *socket)
{
    *give = (struct give){.socket = socket, .fd = -1};
}

void give_begin(struct give *give)
{
    if (give->socket && give->fd < 0)
        give->fd = connect_unit(give->socket);
}

void give_end(struct give *give)
{
    fd_closep(&give->fd);
}

static int wait_for_reply(int fd, int patience)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int r;

    do
        r = poll(&p, 1, patience);
    while (r < 0 && errno == EINTR);
    if (r < 0)
        return -errno;
    return r == 0 ? -ETIMEDOUT : 0;
}

/* A negative errno is one of the connection; what the giver says is in *ret. */
static int ask(const struct give *give, int file, const struct give_request *request, int *ret)
{
    struct give_reply reply;
    ssize_t n;
    int r;

    r = fd_pass_send(give->fd, request, sizeof(*request), &file, 1);
    if (r >= 0)
        r = wait_for_reply(give->fd, give->answered ? PATIENCE : PATIENCE_FIRST);
    if (r < 0)
        return r;
    n = recv(give->fd, &reply, sizeof(reply), MSG_DONTWAIT | MSG_TRUNC);
    if (n < 0)
        return -errno;
    if (n != sizeof(reply) || reply.error > 0)
        return n == 0 ? -ECONNRESET : -EBADMSG;
    *ret = reply.error;
    return 0;
}

static bool is_given(int file, uid_t uid, gid_t gid)
{
    struct stat st;

    return fstat(file, &st) >= 0 && st.st_uid == uid && (gid == (gid_t)-1 || st.st_gid == gid);
}

/* A giver that was ended since the last time is started anew, once. It may have been ended just after it did
 * what it was asked for. */
static int ask_twice(struct give *give, int file, const struct give_request *request, int *ret)
{
    int r = 0;

    for (int i = 0; i < 2; i++) {
        if (i > 0 && is_given(file, request->uid, request->gid))
            return *ret = 0;
        give_begin(give);
        if (give->fd < 0)
            return give->fd;
        r = ask(give, file, request, ret);
        if (r >= 0)
            return r;
        give_end(give);
        if (r != -EPIPE && r != -ECONNRESET)
            break;
    }
    return r;
}

static void log_failure(const struct give *give, int r)
{
    if (r == -ETIMEDOUT)
        log_event(LOG_ERR, NULL, NULL,
                  "vmferry-giver, at %s, does not answer; it is not asked again for %d s. See systemctl "
                  "status vmferry-giver.socket.",
                  give->socket, SILENCE / 1000);
    else
        log_event(LOG_ERR, NULL, NULL,
                  "vmferry-giver, at %s, cannot be asked: %s. See systemctl status vmferry-giver.socket.",
                  give->socket, r == -EBADMSG ? "what it said is no answer" : strerror(-r));
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
    if (exact_now() < give->silent_until)
        return -ENOLINK;
    r = ask_twice(give, file, &request, &said);
    if (r >= 0) {
        give->answered = true;
        return said;
    }
    if (r == -ETIMEDOUT)
        give->silent_until = exact_now() + SILENCE * UINT64_C(1000);
    log_failure(give, r);
    return -ENOLINK;
}

const char *give_why(int r)
{
    return r == -ENOLINK ? "vmferry-giver, which gives it to its owner, cannot be reached or does not "
                           "answer. See systemctl status vmferry-giver.socket, and try again"
                         : strerror(-r);
}
