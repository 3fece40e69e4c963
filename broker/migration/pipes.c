/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/pipes.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/cleanup.h"

enum {
    MOVE_SIZE = 256 * 1024,
    KEEP_SIZE = 1024 * 1024,       /* what a user without privileges may ask for, pipe(7) */
    KEEP_WINDOW = 4 * 1024 * 1024, /* what they hold, of a stream whose pieces are not the smallest */
    /* Channels at once of all migrations: 16 × 576 slots are some half of what pipe-user-pages-soft lets a
     * user have, 16384; beyond it even his other programs get the smallest pipes only. */
    PIPED_IN_ALL = 16,
};

/* A pipe with one descriptor for both of its ends; or a negative errno. */
static int make_pipe(int size)
{
    char path[32];
    int pair[2];

    if (pipe2(pair, O_CLOEXEC | O_NONBLOCK) < 0)
        return -errno;
    _cleanup_fd_ int out = pair[0], in = pair[1];
    int fd;

    if (fcntl(in, F_SETPIPE_SZ, size) < 0 && size > MOVE_SIZE)
        return -errno; /* to move bytes a smaller one serves as well */
    snprintf(path, sizeof(path), "/proc/self/fd/%d", in);
    fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    (void)out;
    return fd < 0 ? -errno : fd;
}

static bool give(struct streams *streams, uint32_t channel, enum pipe_use use, int size)
{
    union message m = {.pipe = {.channel = channel, .use = use}};
    _cleanup_fd_ int fd = make_pipe(size);

    return fd >= 0 && helper_side_send(streams->helper, MESSAGE_PIPE, &m, fd) >= 0;
}

/* Asked of a socket that is not connected: then it says ENOTCONN, and ENOENT where it has none. */
static bool kernel_has_tls(void)
{
    static const char name[] = "tls";
    _cleanup_fd_ int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    return fd >= 0 && setsockopt(fd, IPPROTO_TCP, TCP_ULP, name, sizeof(name)) < 0 && errno == ENOTCONN;
}

/* Whether a helper can splice: it does not encrypt itself. */
static bool can_splice(const struct streams *streams)
{
    return streams->options->security == SECURITY_PLAIN ||
           (streams->options->resume_timeout > 0 && kernel_has_tls());
}

static uint32_t piped_in_all(const struct registry *registry)
{
    const struct entry *entry;
    uint32_t n = 0;

    TAILQ_FOREACH(entry, &registry->entries, next)
    if (entry->identity.state != STATE_FINISHED)
        n += entry->n_piped;
    return n;
}

void pipes_give_source(struct streams *streams)
{
    bool given = true;

    if (streams->entry->n_piped >= PIPED_CHANNELS || streams->services->config->window > KEEP_WINDOW ||
        piped_in_all(streams->services->registry) >= PIPED_IN_ALL || !can_splice(streams))
        return;
    for (int i = 0; i < KEEP_PIPES && given && streams->options->resume_timeout > 0; i++)
        given = give(streams, MESSAGE_CHANNEL_NEW, PIPE_KEEP, KEEP_SIZE);
    if (given)
        streams->entry->n_piped += give(streams, MESSAGE_CHANNEL_NEW, PIPE_MOVE, MOVE_SIZE);
}

void pipes_give_destination(struct streams *streams, uint32_t channel)
{
    if (can_splice(streams))
        give(streams, channel, PIPE_MOVE, MOVE_SIZE);
}
