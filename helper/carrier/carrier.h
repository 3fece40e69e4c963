/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A carrier moves bytes between a ring and a socket: QEMU's, or a peer connection's. It owns the FD, the
 * event source and, in TLS, the session and its buffers; how a ring is sent and filled is its business alone.
 * Non-blocking throughout. One thread at a time. raw.h, plain.h and tls.h make one each.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "helper/carrier/handshake.h"
#include "helper/carrier/ring.h"
#include "helper/protocol/key.h"

/* Bytes that one call moves at most: what is read or sent in one system call. */
#define CARRIER_BATCH ((size_t)256 * 1024)

struct carrier;
struct worker;

struct carrier_ops {
    /*
     * Proves both ends to each other: 0 when done, -EAGAIN, -ECONNRESET when the other end went away,
     * -EKEYREJECTED when it has not the key, -ECONNREFUSED when it sent a rejection instead (see rejected).
     * NULL: there is none.
     */
    int (*handshake)(struct carrier *carrier);
    /* Fills the ring by at most max bytes: > 0 bytes, 0 at EOF, -EAGAIN, or another negative errno. */
    ssize_t (*recv)(struct carrier *carrier, struct ring *ring, size_t max);
    /* Sends from the ring's cursor on and moves it: > 0 bytes, -EAGAIN, or another negative errno. */
    ssize_t (*send)(struct carrier *carrier, struct ring *ring);
    /* Sends what it holds itself: 0, -EAGAIN, or another negative errno. */
    int (*flush)(struct carrier *carrier);
    /* Has taken bytes from the socket (ring) that it has not given to the ring (socket) yet. */
    bool (*holds_input)(const struct carrier *carrier);
    bool (*holds_output)(const struct carrier *carrier);
    /* After the handshake: a secret of this connection's two ends. 0 or a negative errno. */
    int (*export_key)(struct carrier *carrier, uint8_t ret[static KEY_SIZE]);
    void (*free)(struct carrier *carrier);
    bool splices; /* recv() and send() serve rings that are in a pipe */
};

typedef void (*carrier_ready_t)(struct carrier *carrier, uint32_t revents, void *userdata);

struct carrier {
    const struct carrier_ops *ops;
    int fd;                  /* owned */
    sd_event_source *source; /* owned; or: */
    struct worker *worker;   /* borrowed: waits for it instead */
    uint64_t tag;            /* with a worker */
    uint32_t watched;        /* with a worker: events */
    carrier_ready_t ready;
    void *userdata;
    bool readable;  /* a read is worth a try: set by the poll, cleared by the read that emptied the socket */
    bool shared;    /* others may flip its O_NONBLOCK: not for splice(2), which has no MSG_DONTWAIT */
    bool held_only; /* recv() takes only what the carrier holds already */
    bool polled;    /* the poll said that it is readable, and nothing was read since */
    uint32_t deaf;  /* how often in a row nothing could be spliced then */
    struct handshake handshake;
};

/* Closes all. Safe on NULL, and in the carrier's own ready(). Returns NULL. */
struct carrier *carrier_free(struct carrier *carrier);

/* Frees all but the socket and returns that, which is the caller's; what the carrier holds must be used up.
 */
int carrier_release(struct carrier *carrier);

/* Calls ready() from this loop from now on; nothing is waited for before carrier_watch().
 * 0 or a negative errno. */
int carrier_attach(struct carrier *carrier, sd_event *event, carrier_ready_t ready, void *userdata);

/*
 * From now on this worker waits for it, and tells the tag; nothing before carrier_watch(). With its lock
 * held. 0; or a negative errno, and nothing has changed.
 */
int carrier_attach_worker(struct carrier *carrier, struct worker *worker, uint64_t tag);

/* What a poll says. */
void carrier_polled(struct carrier *carrier, uint32_t revents);

/* Waits for these events (EPOLLIN, EPOLLOUT); with none the source is off: a polled POLLHUP would spin. */
void carrier_watch(struct carrier *carrier, uint32_t events);

/*
 * After the last words, which are in this ring: sends the rest of them and no more, then reads until the
 * other end has closed, for a close with unread bytes would reset the connection and take the words with it.
 * Waits for what it needs. False when that is over. Call it again in ready().
 */
bool carrier_linger(struct carrier *carrier, struct ring *words);

static inline ssize_t carrier_recv(struct carrier *carrier, struct ring *ring, size_t max)
{
    return carrier->ops->recv(carrier, ring, max);
}

static inline ssize_t carrier_send(struct carrier *carrier, struct ring *ring)
{
    return carrier->ops->send(carrier, ring);
}

static inline bool carrier_holds_input(const struct carrier *carrier)
{
    return carrier->ops->holds_input(carrier);
}

static inline bool carrier_holds_output(const struct carrier *carrier)
{
    return carrier->ops->holds_output(carrier);
}

/* Another process holds the socket, too. */
static inline void carrier_set_shared(struct carrier *carrier, bool shared)
{
    carrier->shared = shared;
}

static inline bool carrier_splices(const struct carrier *carrier)
{
    return carrier->ops->splices && !carrier->shared;
}
