/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/ssh/relay.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BUFFER = 256 * 1024 };

/* One direction. It is over when its end was passed on, or its receiver is gone. */
struct flow {
    int from, to;
    size_t begin, end; /* what of the buffer is yet to be written */
    bool eof, over;
    uint8_t buffer[BUFFER];
};

static void flow_end(struct flow *flow)
{
    flow->over = true;
    /* A pipe knows no half-close, and has no other half either. */
    if (shutdown(flow->to, SHUT_WR) < 0 && errno == ENOTSOCK)
        close(flow->to);
}

static void flow_read(struct flow *flow)
{
    ssize_t n = read(flow->from, flow->buffer, BUFFER);

    if (n > 0) {
        flow->begin = 0;
        flow->end = (size_t)n;
    } else if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        flow->eof = true;
    }
}

static void flow_write(struct flow *flow)
{
    ssize_t n = write(flow->to, flow->buffer + flow->begin, flow->end - flow->begin);

    if (n > 0) {
        flow->begin += (size_t)n;
    } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
        /* The sender must learn that its bytes are not read any more. */
        flow->over = true;
        shutdown(flow->from, SHUT_RD);
    }
}

static bool flow_holds(const struct flow *flow)
{
    return flow->begin < flow->end;
}

static void flow_step(struct flow *flow, const struct pollfd *from, const struct pollfd *to)
{
    if (flow->over)
        return;
    if (!flow_holds(flow) && !flow->eof && from->revents)
        flow_read(flow);
    if (flow_holds(flow) && (to->revents & (POLLOUT | POLLERR | POLLHUP)))
        flow_write(flow);
    if (!flow->over && flow->eof && !flow_holds(flow))
        flow_end(flow);
}

static void nonblocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags >= 0)
        fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

/* What has ended altogether takes nothing any more: bytes for it are not waited for. */
static bool has_hung_up(const struct pollfd *p)
{
    return p->revents & (POLLHUP | POLLERR | POLLNVAL);
}

void relay_run(int in, int out, int sock)
{
    static struct flow there, back; /* too large for a stack */

    signal(SIGPIPE, SIG_IGN);
    nonblocking(in);
    nonblocking(out);
    nonblocking(sock);
    there.from = in;
    there.to = sock;
    back.from = sock;
    back.to = out;
    while (!there.over || !back.over) {
        struct flow *flows[] = {&there, &back};
        struct pollfd p[4];

        for (size_t i = 0; i < 2; i++) {
            const struct flow *flow = flows[i];
            bool reads = !flow->over && !flow->eof && !flow_holds(flow);
            bool writes = !flow->over && flow_holds(flow);
            /* The other direction has ended: is that a half-close of the receiver's, or its end? */
            bool looks = !flow->over && flows[1 - i]->over;

            /* What nothing is wanted of is not polled: POLLHUP would come again and again. */
            p[2 * i] = (struct pollfd){.fd = reads ? flow->from : -1, .events = POLLIN};
            p[2 * i + 1] =
                (struct pollfd){.fd = writes || looks ? flow->to : -1, .events = writes ? POLLOUT : 0};
        }
        if (poll(p, 4, -1) < 0) {
            if (errno != EINTR)
                return;
            continue;
        }
        for (size_t i = 0; i < 2; i++) {
            flow_step(flows[i], &p[2 * i], &p[2 * i + 1]);
            if (has_hung_up(&p[2 * i + 1]) && flows[1 - i]->over)
                flows[i]->over = true;
        }
    }
}

void relay_detach(int a, int b)
{
    unsigned low = (unsigned)(a < b ? a : b), high = (unsigned)(a < b ? b : a);

    signal(SIGINT, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    if (low > 0)
        close_range(0, low - 1, 0);
    if (high > low + 1)
        close_range(low + 1, high - 1, 0);
    close_range(high + 1, ~0U, 0);
}

int relay_start(int a, int b)
{
    pid_t pid = fork();

    if (pid < 0)
        return -errno;
    if (pid == 0) {
        /* Twice, so that init reaps it, and not this program. */
        if (fork() != 0)
            _exit(0);
        relay_detach(a, b);
        relay_run(a, a, b);
        _exit(0);
    }
    relay_reap(pid);
    return 0;
}

void relay_reap(pid_t pid)
{
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
}
