/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/qemu/qmp-connect.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "common/cleanup.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

static int connect_trouble(const char *path, int error, struct trouble *trouble)
{
    switch (error) {
    case ENOENT:
        return trouble_set(
            trouble, STATUS_FAILED,
            "There is no QMP socket %s. Give the path that QEMU's option -qmp unix:PATH,server=on,wait=off "
            "names.",
            path);
    case ECONNREFUSED:
        return trouble_set(trouble, STATUS_FAILED, "Nobody listens on the QMP socket %s. Has QEMU ended?",
                           path);
    case EACCES:
    case EPERM:
        return trouble_set(trouble, STATUS_DENIED,
                           "The QMP socket %s is not for this user. Run it as root, or as the user of QEMU.",
                           path);
    case EAGAIN:
        return trouble_set(
            trouble, STATUS_FAILED,
            "The QMP socket %s is taken: other clients are connected or wait. QEMU serves one at a time; "
            "give QEMU another -qmp socket for vmferryctl.",
            path);
    default:
        return trouble_set(trouble, STATUS_FAILED, "Cannot connect to the QMP socket %s: %s.", path,
                           strerror(error));
    }
}

static void file_closep(FILE **file)
{
    if (*file)
        fclose(*file);
}

/* The effective uid of a process, as /proc has it. */
static int read_uid(pid_t pid, uid_t *ret)
{
    _cleanup_(file_closep) FILE *file = NULL;
    char path[64], line[256];
    unsigned uid;

    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    file = fopen(path, "re");
    while (file && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "Uid: %*u %u", &uid) == 1) {
            *ret = uid;
            return 0;
        }
    }
    return -ENODATA;
}

int qmp_peer_uid(int fd, uid_t *ret)
{
    struct ucred creds = {0};
    socklen_t size = sizeof(creds);
    _cleanup_fd_ int process = -1;
    struct pollfd p;
    uid_t uid;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &creds, &size) < 0)
        return -errno;
    *ret = creds.uid;
    size = sizeof(process);
    if (creds.uid != 0 || creds.pid <= 0 || getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &process, &size) < 0)
        return 0; /* only root can change; a kernel before 6.5 knows no SO_PEERPIDFD */
    p = (struct pollfd){.fd = process, .events = POLLIN};
    if (read_uid(creds.pid, &uid) >= 0 && poll(&p, 1, 0) == 0)
        *ret = uid;
    return 0;
}

int qmp_connect(struct ctl *ctl, const char *path, uid_t *ret_uid, struct trouble *trouble)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    uint64_t end = ctl_now() + QMP_GREETING_TIMEOUT;
    _cleanup_fd_ int fd = -1;
    int r;

    if (strlen(path) >= sizeof(address.sun_path))
        return trouble_set(trouble, STATUS_USAGE, "The path of the QMP socket, %s, is longer than %zu bytes.",
                           path, sizeof(address.sun_path) - 1);
    strcpy(address.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return connect_trouble(path, errno, trouble);
    while (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        if (errno != EAGAIN || ctl_now() >= end || ctl->interrupts > 0)
            return connect_trouble(path, errno, trouble);
        if (ctl_turn(ctl, SECOND / 10, trouble) < 0) /* its queue is full */
            return -1;
    }
    r = qmp_peer_uid(fd, ret_uid);
    if (r < 0)
        return connect_trouble(path, -r, trouble);
    return fd_steal(&fd);
}
