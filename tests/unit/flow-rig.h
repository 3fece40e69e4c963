/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One helper's channel between two sockets of the test: `qemu` is QEMU's end, `peer` the other helper's. */

#include "test-util.h"

#include "helper/carrier/raw.h"
#include "helper/relay/flow.h"

#include <poll.h>

enum { WINDOW = 4 * 1024 * 1024 };

struct rig {
    int qemu, peer;
    struct carrier *to_qemu, *to_peer;
    struct ring_pool pool;
    struct flow out, in;
};

static inline void rig_init_on(struct rig *rig, const int qemu[static 2], const int peer[static 2])
{
    *rig = (struct rig){.qemu = qemu[0], .peer = peer[0], .pool = {.max_free = 4}};
    assert_int_equal(carrier_raw_new(qemu[1], &rig->to_qemu), 0);
    assert_int_equal(carrier_raw_new(peer[1], &rig->to_peer), 0);
    assert_int_equal(flow_init(&rig->out, FLOW_OUT, &rig->pool, WINDOW), 0);
    assert_int_equal(flow_init(&rig->in, FLOW_IN, &rig->pool, FLOW_BUFFER), 0);
    rig->out.from = rig->in.to = rig->to_qemu;
    rig->out.to = rig->in.from = rig->to_peer;
}

static inline void rig_init(struct rig *rig)
{
    int qemu[2], peer[2];

    test_pair(SOCK_STREAM, 0, qemu);
    test_pair(SOCK_STREAM, 0, peer);
    rig_init_on(rig, qemu, peer);
}

static inline void close_end(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static inline void rig_clear(struct rig *rig)
{
    flow_clear(&rig->out);
    flow_clear(&rig->in);
    carrier_free(rig->to_qemu);
    carrier_free(rig->to_peer);
    ring_pool_clear(&rig->pool);
    close_end(&rig->qemu);
    close_end(&rig->peer);
}

/* As the loop of events does it: first what the poll says of the connection that is read from. */
static inline enum flow_verdict pump(struct flow *flow, uint64_t now)
{
    struct pollfd p = {.events = POLLIN};

    if (flow->from) {
        p.fd = flow->from->fd;
        if (poll(&p, 1, 0) > 0)
            flow->from->readable = flow->from->polled = true;
    }
    return flow_pump(flow, now, FLOW_BUDGET);
}

/* Writes what goes, up to size bytes of the stream from offset on. */
static inline size_t put(int fd, uint64_t offset, size_t size)
{
    uint8_t buf[65536];
    size_t done = 0;

    while (done < size) {
        size_t n = size - done < sizeof(buf) ? size - done : sizeof(buf);
        ssize_t r;

        test_fill(buf, n, offset + done);
        r = send(fd, buf, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (r < 0) {
            assert_int_equal(errno, EAGAIN);
            break;
        }
        done += (size_t)r;
    }
    return done;
}

/* Reads what is there, up to size bytes, and holds it against the stream from offset on; -1 at EOF, if
 * nothing came. */
static inline ssize_t get(int fd, uint64_t offset, size_t size)
{
    uint8_t buf[65536];
    size_t done = 0;

    while (done < size) {
        size_t n = size - done < sizeof(buf) ? size - done : sizeof(buf);
        ssize_t r = recv(fd, buf, n, MSG_DONTWAIT);

        if (r == 0)
            return done > 0 ? (ssize_t)done : -1;
        if (r < 0) {
            assert_int_equal(errno, EAGAIN);
            break;
        }
        test_expect(buf, (size_t)r, offset + done);
        done += (size_t)r;
    }
    return (ssize_t)done;
}

/* Both ends in one descriptor, as the broker hands it over; of that many bytes, a page or more. */
static inline int rig_pipe(int size)
{
    int ends[2], fd;
    char path[64];

    assert_int_equal(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
    assert_true(fcntl(ends[0], F_SETPIPE_SZ, size) >= size);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", ends[0]);
    fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    assert_true(fd >= 0);
    close(ends[0]);
    close(ends[1]);
    return fd;
}
