/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/pipes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "common/cleanup.h"

enum { PIPE_SIZE = 256 * 1024 };

/* A pipe with one descriptor for both of its ends; or a negative errno. */
static int make_pipe(void)
{
    char path[32];
    int pair[2];

    if (pipe2(pair, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    _cleanup_fd_ int out = pair[0], in = pair[1];
    int fd;

    (void)out;
    fcntl(in, F_SETPIPE_SZ, PIPE_SIZE); /* a smaller one serves as well */
    snprintf(path, sizeof(path), "/proc/self/fd/%d", in);
    fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

void pipes_give(struct streams *streams, uint32_t channel)
{
    union message m = {.pipe = {.channel = channel, .use = PIPE_MOVE}};

    if (streams->options->security != SECURITY_PLAIN)
        return;
    _cleanup_fd_ int fd = make_pipe();
    if (fd >= 0)
        helper_side_send(streams->helper, MESSAGE_PIPE, &m, fd);
}
