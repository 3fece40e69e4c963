/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/peer/peer.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <syslog.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "helper/carrier/plain.h"
#include "helper/carrier/raw.h"
#include "helper/carrier/socket.h"
#include "helper/carrier/tls.h"
#include "helper/protocol/frame.h"

enum { CONTROL_BUFFER = 32 * 1024, CHANNEL_BUFFER = 256 * 1024 };

/* The only way to another stage but the first and the last. */
static void set_stage(struct peer *peer, enum peer_stage stage)
{
    static const char *const names[] = {
        [PEER_UNUSED] = "unused", [PEER_PREAMBLE] = "preamble", [PEER_GREETING] = "greeting",
        [PEER_PROOF] = "proof",   [PEER_HELLO] = "hello",       [PEER_PARKED] = "parked",
        [PEER_LINGER] = "linger",
    };

    if (peer->stage == PEER_UNUSED || stage <= peer->stage) {
        link_log(peer->peers->options.link, LOG_ERR, "A peer connection: %s → %s cannot be.",
                 names[peer->stage], names[stage]);
        return;
    }
    /* Strangers come this far at will. */
    if (stage > PEER_PROOF)
        link_log(peer->peers->options.link, LOG_DEBUG, "a peer connection: %s → %s", names[peer->stage],
                 names[stage]);
    peer->stage = stage;
}

void peer_clear(struct peer *peer)
{
    if (peer->stage == PEER_UNUSED)
        return;
    peer->carrier = carrier_free(peer->carrier);
    ring_clear(&peer->in);
    ring_clear(&peer->out);
    if (peers_connect(peer->peers))
        requests_end_peer(peer->peers->options.requests, peer->serial);
    peer->stage = PEER_UNUSED;
}

void peer_fail(struct peer *peer, int error)
{
    struct peers *peers = peer->peers;
    struct peer_no no = {
        .error = error,
        .rejected = peer->carrier ? peer->carrier->handshake.rejected : 0,
        .believed = true,
    };
    struct peer_failure failure = {.kind = peer->kind, .channel = peer->channel, .brought = peer->shared};
    bool unproved = peer->stage == PEER_PREAMBLE || peer->stage == PEER_PROOF, again = false;

    if (!peers_connect(peers) && peer->stage != PEER_LINGER)
        peers_log_refused(peers, error == -ETIMEDOUT ? "silence" : strerror(-error));
    /* Before peer_clear(), which ends a request that has COME: one that is to be tried again is ASKED by
     * then, and stays. The event comes last, when the slot is free: its handler may start the next connection
     * in it. */
    if (peers_connect(peers) && unproved)
        again = requests_try_next(peers->options.requests, peer->serial, &no);
    peer_clear(peer);
    if (!peers_connect(peers) || again)
        return;
    failure.error = no.error;
    failure.rejected = no.rejected;
    failure.believed = no.believed;
    peers->events->failed(peers->userdata, &failure);
}

static int send_preamble(struct peer *peer)
{
    struct preamble preamble = {.kind = peer->kind, .id = peer->peers->options.id, .mark = peer->mark};
    uint8_t buf[PREAMBLE_SIZE];

    preamble_encode(&preamble, buf);
    while (peer->preamble_sent < sizeof(buf)) {
        struct iovec iov = {buf + peer->preamble_sent, sizeof(buf) - peer->preamble_sent};
        ssize_t n = socket_send(peer->carrier->fd, &iov, 1);

        if (n < 0)
            return (int)n;
        peer->preamble_sent += (size_t)n;
    }
    return 0;
}

/* There is a control connection already: says so under the proof just given, and lets the peer read it. */
static int refuse_control(struct peer *peer)
{
    struct frame frame = {.type = FRAME_ABORT};
    uint8_t buf[FRAME_MAX];
    int r;

    frame.refusal.error = VF_ERROR_TICKET_USED;
    strcpy(frame.refusal.text, "This ticket has been used already. Call PrepareIncoming for a new one.");
    link_log(peer->peers->options.link, LOG_WARNING,
             "A second control connection was refused: the ticket is used.");
    set_stage(peer, PEER_LINGER);
    r = ring_append(&peer->out, buf, frame_encode(&frame, buf));
    if (r >= 0 && !carrier_linger(peer->carrier, &peer->out))
        peer_clear(peer);
    return r;
}

static int send_channel_hello(struct peer *peer)
{
    struct channel_hello hello = {
        .channel = peer->channel,
        .received = channels_received(peer->peers->options.channels, peer->channel),
    };
    uint8_t buf[CHANNEL_HELLO_SIZE];
    ssize_t n;
    int r;

    channel_hello_encode(&hello, buf);
    r = ring_append(&peer->out, buf, sizeof(buf));
    if (r < 0)
        return r;
    n = carrier_send(peer->carrier, &peer->out);
    if (n < 0 && n != -EAGAIN)
        return (int)n;
    return ring_unsent(&peer->out) > 0 ? -EIO : 0; /* the first bytes of a connection always have room */
}

/* Gives the proved connection to its channel; the slot is free again. */
static void give_to_channel(struct peer *peer)
{
    struct channels *channels = peer->peers->options.channels;
    struct carrier *carrier = peer->carrier;
    uint32_t number = peer->channel;

    /* The slot is cleared first: channels_set_peer() may end the session or start other peers. */
    peer->carrier = NULL;
    peer_clear(peer);
    channels_set_peer(channels, number, carrier);
}

bool peer_unpark(struct peer *peer)
{
    int r = send_channel_hello(peer);

    if (r < 0)
        peer_fail(peer, r);
    else
        give_to_channel(peer);
    return r >= 0;
}

/* The other side's channel hello: which channel this is, and from where it goes on. */
static int on_channel_hello(struct peer *peer)
{
    bool connecting = peers_connect(peer->peers);
    uint8_t buf[CHANNEL_HELLO_SIZE];
    struct channel_hello hello;
    bool known;
    ssize_t n;
    int r;

    n = carrier_recv(peer->carrier, &peer->in, ring_room(&peer->in));
    if (n <= 0)
        return n == 0 ? -ECONNRESET : (int)n;
    if (ring_copy(&peer->in, buf, sizeof(buf)) < sizeof(buf))
        return -EAGAIN;
    if (channel_hello_decode(buf, &hello) != VERDICT_OK || (connecting && hello.channel != peer->channel))
        return -EBADMSG;
    /* One that is alive, or an offset that cannot be, is refused before anything changes. */
    r = channels_resume(peer->peers->options.channels, hello.channel, hello.received);
    known = r > 0;
    peer->channel = hello.channel;
    if (known && !connecting)
        r = send_channel_hello(peer);
    if (r < 0)
        return r;
    if (known)
        give_to_channel(peer);
    else if (connecting)
        peer_clear(peer); /* the channel ended meanwhile */
    else
        set_stage(peer, PEER_PARKED);
    return 0;
}

static int on_proved(struct peer *peer)
{
    struct peers *peers = peer->peers;
    struct carrier *carrier = peer->carrier;
    enum peer_kind kind = peer->kind;
    int r;

    /* Only after the proof: a stranger learns nothing of a ticket, and cannot make this side refuse its peer.
     */
    if (peers->keys[kind].state == KEY_USED)
        return refuse_control(peer);
    if (peers_connect(peers))
        requests_peer_proved(peers->options.requests, peer->serial);
    if (kind != PEER_CHANNEL) {
        peer->carrier = NULL;
        peer_clear(peer);
        peers->events->proved(peers->userdata, kind, carrier);
        return 0;
    }
    set_stage(peer, PEER_HELLO);
    if (peers_connect(peers)) {
        r = send_channel_hello(peer);
        if (r < 0)
            return r;
    }
    return on_channel_hello(peer);
}

/* The preamble of a connection that did not come through the gate. */
static int on_greeting(struct peer *peer)
{
    uint8_t buf[PREAMBLE_SIZE];
    struct preamble preamble;
    ssize_t n = carrier_recv(peer->carrier, &peer->in, PREAMBLE_SIZE - (size_t)peer->in.end);
    int fd;

    if (n <= 0)
        return n == 0 ? -ECONNRESET : (int)n;
    if (ring_copy(&peer->in, buf, sizeof(buf)) < sizeof(buf))
        return -EAGAIN;
    if (preamble_decode(buf, &preamble) != VERDICT_OK || preamble.id != peer->peers->options.id ||
        !peers_admit(peer->peers, &preamble))
        return -EPROTO;
    ring_clear(&peer->in);
    ring_clear(&peer->out);
    peer->kind = preamble.kind;
    peer->mark = preamble.mark;
    peer->since = turn_now(peer->peers->options.event);
    set_stage(peer, PEER_PROOF);
    fd = carrier_release(peer->carrier);
    peer->carrier = NULL;
    return peer_begin(peer, fd);
}

/* 0 or -EAGAIN while all is well, else what is wrong. It may clear the peer. */
static int step(struct peer *peer)
{
    int r;

    if (peer->stage == PEER_GREETING) {
        r = on_greeting(peer);
        if (r < 0)
            return r;
    }
    switch (peer->stage) {
    case PEER_PREAMBLE:
        r = send_preamble(peer);
        if (r < 0)
            return r;
        set_stage(peer, PEER_PROOF);
        /* fall through */
    case PEER_PROOF:
        r = peer->carrier->ops->handshake(peer->carrier);
        return r < 0 ? r : on_proved(peer);
    case PEER_HELLO:
        r = (int)carrier_send(peer->carrier, &peer->out);
        if (r < 0 && r != -EAGAIN)
            return r;
        return on_channel_hello(peer);
    case PEER_GREETING:
    case PEER_PARKED:
    case PEER_LINGER:
    case PEER_UNUSED:
        break;
    }
    return 0;
}

void peer_watch(struct peer *peer)
{
    uint32_t events = EPOLLIN;

    if (peer->stage == PEER_PARKED)
        events = 0; /* its bytes wait where they are */
    else if (peer->stage == PEER_PREAMBLE || ring_unsent(&peer->out) > 0 ||
             carrier_holds_output(peer->carrier))
        events |= EPOLLOUT;
    carrier_watch(peer->carrier, events);
}

void peer_drive(struct peer *peer)
{
    int r;

    if (peer->stage == PEER_LINGER) {
        if (!carrier_linger(peer->carrier, &peer->out))
            peer_clear(peer);
        return;
    }
    r = step(peer);
    /* It was handed on, and the slot may be another connection's; or the session has ended in it. */
    if (*peer->peers->options.halted || peer->stage == PEER_UNUSED)
        return;
    if (r < 0 && r != -EAGAIN)
        peer_fail(peer, r);
    else
        peer_watch(peer);
}

static void on_ready(struct carrier *carrier, uint32_t revents, void *userdata)
{
    peer_drive(userdata);
}

static int make_carrier(struct peer *peer, int fd)
{
    const struct peers *peers = peer->peers;
    const uint8_t *key = peers->keys[peer->kind].key;
    struct preamble preamble = {.kind = peer->kind, .id = peers->options.id};

    if (peer->stage == PEER_GREETING)
        return carrier_raw_new(fd, &peer->carrier);
    if (peers->options.security == SECURITY_PLAIN)
        return carrier_plain_new(fd, peers_connect(peers), &preamble, key, &peer->carrier);
    return carrier_tls_new(fd, peers_connect(peers), &preamble, key,
                           peer->kind == PEER_CHANNEL ? CHANNEL_BUFFER : CONTROL_BUFFER, peers->options.aeads,
                           &peer->carrier);
}

int peer_begin(struct peer *peer, int fd)
{
    const struct peers_options *options = &peer->peers->options;
    _cleanup_fd_ int owned = fd;
    int r = make_carrier(peer, fd);

    if (r < 0)
        return r;
    owned = -1;
    carrier_set_shared(peer->carrier, peer->shared);
    r = carrier_attach(peer->carrier, options->event, on_ready, peer);
    if (r >= 0)
        r = ring_init(&peer->in, options->pool,
                      peer->stage == PEER_GREETING ? PREAMBLE_SIZE : CHANNEL_HELLO_SIZE);
    if (r >= 0)
        r = ring_init(&peer->out, options->pool, FRAME_MAX);
    return r;
}
