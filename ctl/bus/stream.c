/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/bus/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "common/cleanup.h"

int stream_open(const struct tunnel *tunnel, struct trouble *trouble)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
    _cleanup_fd_ int copy = -1;
    int fd, flags;

    if (side_call(tunnel->side, tunnel->path, MIGRATION_INTERFACE, "OpenStream", &reply, trouble,
                  "Cannot open a stream", "s", "migrate") < 0)
        return -1;
    if (sd_bus_message_read(reply, "h", &fd) < 0 || (copy = fcntl(fd, F_DUPFD_CLOEXEC, 3)) < 0)
        return trouble_set(trouble, STATUS_FAILED, "The broker gave no socket.");
    flags = fcntl(copy, F_GETFL);
    if (flags >= 0)
        fcntl(copy, F_SETFL, flags & ~O_NONBLOCK);
    return fd_steal(&copy);
}

void stream_drain(int fd)
{
    static char data[256 * 1024];

    while (read(fd, data, sizeof(data)) > 0 || errno == EINTR)
        errno = 0;
}
