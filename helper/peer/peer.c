/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/session/session.h"

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

/*
 * A peer connection from its FD to the proof that the other end holds the key. Anybody on the network can
 * open one, so there are so many and no more, each with a deadline (the session's tick), and the newest pays
 * with the oldest's place: the peer that holds the key needs it for a round trip or two only.
 */

enum { CONTROL_BUFFER = 32 * 1024, CHANNEL_BUFFER = 256 * 1024 };

void peer_clear(struct peer *peer)
{
    peer->carrier = carrier_free(peer->carrier);
    ring_clear(&peer->in);
    ring_clear(&peer->out);
    peer->stage = PEER_UNUSED;
}

static void peer_failed(struct peer *peer, int r)
{
    struct session *session = peer->session;

    if (peer->connecting) {
        peer_connecting_failed(peer, r);
    } else if (peer->stage != PEER_LINGER) {
        session->n_refused++;
        /* 1, 2, 4, 8 …: a flood is not for the log */
        if ((session->n_refused & (session->n_refused - 1)) == 0)
            link_log(session->link, LOG_WARNING,
                     "A connection from the network failed to prove itself (%s); %u so far.",
                     r == -ETIMEDOUT ? "silence" : strerror(-r), session->n_refused);
    }
    peer_clear(peer);
}

static int send_preamble(struct peer *peer)
{
    struct preamble preamble = {.kind = peer->kind, .id = peer->session->id};
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
    link_log(peer->session->link, LOG_WARNING,
             "A second control connection was refused: the ticket is used.");
    peer->stage = PEER_LINGER;
    r = ring_append(&peer->out, buf, frame_encode(&frame, buf));
    if (r >= 0 && !carrier_linger(peer->carrier, &peer->out))
        peer_clear(peer);
    return r;
}

static int send_channel_hello(struct peer *peer)
{
    const struct channel *channel = channel_find(peer->session, peer->channel);
    _cleanup_(worker_unlockp) struct worker *locked = channel ? channel_lock(channel) : NULL;
    struct channel_hello hello = {.channel = peer->channel, .received = channel ? channel->in.ring.end : 0};
    uint8_t buf[CHANNEL_HELLO_SIZE];
    ssize_t n;
    int r;

    channel_hello_encode(&hello, buf);
    r = ring_append(&peer->out, buf, sizeof(buf));
    if (r < 0)
        return r;
    peer->hello_sent = true;
    n = carrier_send(peer->carrier, &peer->out);
    if (n < 0 && n != -EAGAIN)
        return (int)n;
    return ring_unsent(&peer->out) > 0 ? -EIO : 0; /* the first bytes of a connection always have room */
}

/* Gives the proved connection to its channel; the peer's slot is free again. */
static void give_to_channel(struct peer *peer, struct channel *channel)
{
    struct carrier *carrier = peer->carrier;

    peer->carrier = NULL;
    peer_clear(peer);
    channel_set_carrier(channel, carrier);
}

/* The other side's channel hello: which channel this is, and from where it goes on. */
static int on_channel_hello(struct peer *peer)
{
    uint8_t buf[CHANNEL_HELLO_SIZE];
    struct channel_hello hello;
    struct channel *channel;
    const char *why;
    ssize_t n;
    int r;

    n = carrier_recv(peer->carrier, &peer->in, ring_room(&peer->in));
    if (n <= 0)
        return n == 0 ? -ECONNRESET : (int)n;
    if (ring_copy(&peer->in, buf, sizeof(buf)) < sizeof(buf))
        return -EAGAIN;
    if (channel_hello_decode(buf, &hello) != VERDICT_OK)
        return -EBADMSG;

    if (peer->connecting && hello.channel != peer->channel)
        return -EBADMSG;
    /* One that is alive, or an offset that cannot be, is refused before anything changes. */
    channel = channel_find(peer->session, hello.channel);
    if (channel && channel->carrier)
        return -EEXIST;
    _cleanup_(worker_unlockp) struct worker *locked = channel ? channel_lock(channel) : NULL;
    why = channel ? flow_resume(&channel->out, hello.received) : hello.received != 0 ? "an offset" : NULL;
    if (why)
        return -EBADMSG;
    peer->channel = hello.channel;
    if (!peer->connecting && channel) {
        r = send_channel_hello(peer);
        if (r < 0)
            return r;
    }
    if (channel)
        give_to_channel(peer, channel);
    else if (peer->connecting)
        peer_clear(peer); /* the channel ended meanwhile */
    else
        peer->stage = PEER_PARKED;
    return 0;
}

static int on_proved(struct peer *peer)
{
    struct session *session = peer->session;
    struct carrier *carrier = peer->carrier;
    int r;

    if (peer->kind == PEER_CONTROL && session->adopted)
        return refuse_control(peer);
    if (peer->kind != PEER_CHANNEL) {
        peer->carrier = NULL;
        peer_clear(peer);
        /* The source, which alone holds that key, has lost what this side may still take for alive. */
        if (session->control.carrier) {
            session_interrupt(session, "The peer has lost the connection and made a new one.");
            session_clean_up(session);
        }
        if (!session->over)
            control_adopt(session, carrier);
        else
            carrier_free(carrier);
        return 0;
    }
    peer->stage = PEER_HELLO;
    if (peer->connecting) {
        r = send_channel_hello(peer);
        if (r < 0)
            return r;
    }
    return on_channel_hello(peer);
}

static void on_peer_ready(struct carrier *carrier, uint32_t revents, void *userdata);
static int peer_attach(struct peer *peer, int fd);

/* Whether there is a key yet that a connection of this kind could hold. */
static bool kind_fits(const struct session *session, enum peer_kind kind)
{
    if (kind == PEER_CHANNEL)
        return session->control.greeted;
    return kind != PEER_RESUME || session->state != STATE_WAITING;
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
    if (preamble_decode(buf, &preamble) != VERDICT_OK || preamble.id != peer->session->id)
        return -EPROTO;
    if (!kind_fits(peer->session, preamble.kind))
        return -EPROTO;
    ring_clear(&peer->in);
    ring_clear(&peer->out);
    peer->kind = preamble.kind;
    peer->since = turn_now(peer->session->event);
    peer->stage = PEER_PROOF;
    fd = carrier_release(peer->carrier);
    peer->carrier = NULL;
    return peer_attach(peer, fd);
}

/* Goes as far as it goes now: 0 or -EAGAIN while all is well, else what is wrong. It may clear the peer. */
static int peer_step(struct peer *peer)
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
        peer->stage = PEER_PROOF;
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

static void peer_watch(struct peer *peer)
{
    uint32_t events = EPOLLIN;

    if (peer->stage == PEER_UNUSED)
        return;
    if (peer->stage == PEER_PARKED)
        events = 0; /* its bytes wait where they are */
    else if (peer->stage == PEER_PREAMBLE || ring_unsent(&peer->out) > 0 ||
             carrier_holds_output(peer->carrier))
        events |= EPOLLOUT;
    carrier_watch(peer->carrier, events);
}

static void peer_drive(struct peer *peer)
{
    int r;

    if (peer->stage == PEER_LINGER) {
        if (!carrier_linger(peer->carrier, &peer->out))
            peer_clear(peer);
        return;
    }
    r = peer_step(peer);
    if (session_halted(peer->session) || peer->stage == PEER_UNUSED)
        return;
    if (r < 0 && r != -EAGAIN)
        peer_failed(peer, r);
    else
        peer_watch(peer);
}

static void on_peer_ready(struct carrier *carrier, uint32_t revents, void *userdata)
{
    peer_drive(userdata);
}

/* A free slot; where none is, that of the oldest connection that has proved nothing. NULL without one. */
static struct peer *peer_slot(struct session *session)
{
    struct peer *oldest = NULL;

    for (size_t i = 0; i < PEERS_MAX; i++) {
        struct peer *peer = &session->peers[i];

        if (peer->stage == PEER_UNUSED)
            return peer;
        if (!peer->connecting && (peer->stage == PEER_PROOF || peer->stage == PEER_LINGER) &&
            (!oldest || peer->since < oldest->since))
            oldest = peer;
    }
    if (oldest)
        peer_failed(oldest, -ETIMEDOUT);
    return oldest;
}

static int make_carrier(struct session *session, struct peer *peer, int fd)
{
    struct preamble preamble = {.kind = peer->kind, .id = session->id};
    const uint8_t *keys[] = {
        [PEER_CONTROL] = session->control_key,
        [PEER_CHANNEL] = session->channel_key,
        [PEER_RESUME] = session->resume_key,
    };
    const uint8_t *key = keys[peer->kind];

    if (peer->stage == PEER_GREETING)
        return carrier_raw_new(fd, &peer->carrier);
    if (session->security == SECURITY_PLAIN)
        return carrier_plain_new(fd, peer->connecting, &preamble, key, &peer->carrier);
    return carrier_tls_new(fd, peer->connecting, &preamble, key,
                           peer->kind == PEER_CHANNEL ? CHANNEL_BUFFER : CONTROL_BUFFER, &peer->carrier);
}

/* Gives the peer its carrier and its rings; takes fd. */
static int peer_attach(struct peer *peer, int fd)
{
    struct session *session = peer->session;
    _cleanup_fd_ int owned = fd;
    int r = make_carrier(session, peer, fd);

    if (r < 0)
        return r;
    owned = -1;
    carrier_set_shared(peer->carrier, peer->shared);
    r = carrier_attach(peer->carrier, session->event, on_peer_ready, peer);
    if (r >= 0)
        r = ring_init(&peer->in, &session->pool,
                      peer->stage == PEER_GREETING ? PREAMBLE_SIZE : CHANNEL_HELLO_SIZE);
    if (r >= 0)
        r = ring_init(&peer->out, &session->pool, FRAME_MAX);
    return r;
}

/* Source: the channel that asked for this connection; NULL when it has ended meanwhile. */
static const struct channel *asked_for(const struct session *session, uint32_t serial)
{
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++)
        if (channel_lives(&session->channels[i]) && !session->channels[i].carrier &&
            session->channels[i].serial == serial)
            return &session->channels[i];
    return NULL;
}

void peer_start(struct session *session, const struct message_peer *m, int fd)
{
    const bool connecting = session->role == ROLE_OUTGOING;
    const struct channel *channel = NULL;
    _cleanup_fd_ int owned = fd;
    struct peer *peer;
    int r;

    if (connecting && !sync_awaits_peer(session, m->kind, m->serial))
        return;
    if (connecting && m->kind == PEER_CHANNEL)
        channel = asked_for(session, m->serial);
    if (!connecting && !kind_fits(session, m->kind))
        return;
    peer = peer_slot(session);
    if (!peer && connecting)
        session_end(session, VF_ERROR_LIMIT_EXCEEDED, true,
                    "More than %d connections to the peer are being made.", PEERS_MAX);
    if (!peer)
        return;
    *peer = (struct peer){
        .session = session,
        .stage = connecting            ? PEER_PREAMBLE
                 : m->kind == PEER_ANY ? PEER_GREETING
                                       : PEER_PROOF,
        .kind = m->kind,
        .connecting = connecting,
        .shared = m->shared != 0,
        .serial = m->serial,
        .channel = channel ? channel->number : 0,
        .since = turn_now(session->event),
    };
    r = peer_attach(peer, fd_steal(&owned));
    if (r < 0)
        peer_failed(peer, r);
    else
        peer_drive(peer);
}

void peer_unpark(struct session *session, struct channel *channel)
{
    int r;

    for (size_t i = 0; i < PEERS_MAX; i++) {
        struct peer *peer = &session->peers[i];

        if (peer->stage != PEER_PARKED || peer->channel != channel->number)
            continue;
        r = send_channel_hello(peer);
        if (r < 0) {
            peer_failed(peer, r);
        } else {
            give_to_channel(peer, channel);
            return;
        }
    }
}

void peer_expire(struct peer *peer, uint64_t now)
{
    /* One that a manager brought waits for the source to use it. */
    if (peer->stage != PEER_UNUSED && peer->stage != PEER_GREETING && now - peer->since > PEER_DEADLINE)
        peer_failed(peer, -ETIMEDOUT);
}
