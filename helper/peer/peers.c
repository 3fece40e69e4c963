/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/peer/peers.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "common/cleanup.h"
#include "common/clock.h"
#include "helper/peer/internal.h"
#include "helper/peer/peer.h"

struct peers *peers_new(const struct peers_options *options, const struct peer_events *events, void *userdata)
{
    struct peers *peers = calloc(1, sizeof(*peers));

    if (!peers)
        return NULL;
    peers->options = *options;
    peers->events = events;
    peers->userdata = userdata;
    return peers;
}

struct peers *peers_free(struct peers *peers)
{
    if (!peers)
        return NULL;
    for (size_t i = 0; i < PEERS_MAX; i++)
        peer_clear(&peers->all[i]);
    explicit_bzero(peers->keys, sizeof(peers->keys));
    free(peers);
    return NULL;
}

int peers_set_key(struct peers *peers, enum peer_kind kind, const uint8_t key[static KEY_SIZE])
{
    struct peer_key *to = &peers->keys[kind];

    *to = (struct peer_key){.state = KEY_SERVES};
    memcpy(to->key, key, KEY_SIZE);
    return mark_key(key, peers->options.id, to->mark_key);
}

void peers_use_key(struct peers *peers, enum peer_kind kind)
{
    peers->keys[kind].state = KEY_USED;
}

void peers_serve_key(struct peers *peers, enum peer_kind kind)
{
    peers->keys[kind].state = KEY_SERVES;
}

void peers_drop_key(struct peers *peers, enum peer_kind kind)
{
    explicit_bzero(&peers->keys[kind], sizeof(peers->keys[kind]));
}

void peers_set_marks(struct peers *peers, bool used)
{
    peers->marks = used ? MARKS_USED : MARKS_NONE;
}

void peers_log_refused(struct peers *peers, const char *why)
{
    peers->n_refused++;
    /* 1, 2, 4, 8 …: a flood is not for the log */
    if ((peers->n_refused & (peers->n_refused - 1)) == 0)
        link_log(peers->options.link, LOG_WARNING,
                 "A connection from the network failed to prove itself (%s); %u so far.", why,
                 peers->n_refused);
}

/* ---- Destination: who may begin ---- */

/* One more whose ticket is used, if it has one. To be told so costs a handshake, which is taken from the
 * migration. */
static bool may_be_late(struct peers *peers)
{
    uint64_t now = turn_now(peers->options.event);

    if (peers->late < now)
        peers->late = now;
    if (peers->late - now > LATE_BURST * (uint64_t)LATE_EACH)
        return false;
    peers->late += LATE_EACH;
    return true;
}

/*
 * Before a handshake is paid for. The preamble is a stranger's: anything may be in it, and its mark may be a
 * copy of one that was seen on the wire. The mark is checked before its number is taken from the window, or a
 * forged one would use up the number of the true one.
 */
bool peers_admit(struct peers *peers, const struct preamble *preamble)
{
    struct peer_key *key = &peers->keys[preamble->kind];
    const char *why = NULL;

    if (key->state == KEY_NONE)
        return false;
    if (preamble->mark.number != 0) {
        if (!mark_is_right(key->mark_key, preamble))
            why = "a wrong mark";
        else if (!mark_window_take(&key->window, preamble->mark.number))
            why = "a mark that has been used";
    } else if (peers->marks == MARKS_USED && preamble->kind != PEER_CONTROL) {
        why = "no mark"; /* a peer that makes marks knows by now that they are read */
    } else if (key->state == KEY_USED && !may_be_late(peers)) {
        why = "too many with a used ticket";
    }
    if (why)
        peers_log_refused(peers, why);
    return why == NULL;
}

static bool may_be_displaced(const struct peer *peer, bool marked)
{
    return (peer->stage == PEER_PROOF || peer->stage == PEER_LINGER) && (peer->mark.number != 0) == marked;
}

/* Any of those, so that nobody can make sure that it is the peer's. */
static struct peer *displace(struct peers *peers, bool marked)
{
    size_t n = 0, nth = 0;

    for (size_t i = 0; i < PEERS_MAX; i++)
        n += may_be_displaced(&peers->all[i], marked);
    if (n == 0 || gnutls_rnd(GNUTLS_RND_NONCE, &nth, sizeof(nth)) < 0)
        return NULL;
    nth %= n;
    for (size_t i = 0; i < PEERS_MAX; i++)
        if (may_be_displaced(&peers->all[i], marked) && nth-- == 0) {
            peer_fail(&peers->all[i], -ETIMEDOUT);
            return &peers->all[i];
        }
    return NULL;
}

/* A free slot; where a destination has none, that of a connection that has proved nothing. NULL without one.
 */
static struct peer *take_slot(struct peers *peers, bool marked)
{
    struct peer *peer;

    for (size_t i = 0; i < PEERS_MAX; i++)
        if (peers->all[i].stage == PEER_UNUSED)
            return &peers->all[i];
    /* A marked connection displaces a marked one only where no other is left: a flood of strangers has no
     * marks. */
    if (peers_connect(peers))
        return NULL;
    peer = displace(peers, false);
    return peer || !marked ? peer : displace(peers, true);
}

/* ---- Source ---- */

/* The mark of the next connection. A peer that has yet to greet may be older than marks: then each second one
 * has one. */
static int make_mark(struct peers *peers, enum peer_kind kind, struct message_mark *ret)
{
    struct peer_key *key = &peers->keys[kind];
    struct preamble preamble = {.kind = kind, .id = peers->options.id};
    bool marked = key->n_made++ % 2 == 1;
    int r;

    if (key->state == KEY_NONE || peers->marks == MARKS_NONE || (peers->marks == MARKS_UNKNOWN && !marked))
        return 0;
    preamble.mark.number = ++key->number;
    r = mark_make(key->mark_key, &preamble);
    *ret = preamble.mark;
    return r;
}

/* ---- Both ---- */

static enum peer_stage first_stage(const struct peers *peers, uint32_t kind)
{
    if (peers_connect(peers))
        return PEER_PREAMBLE;
    return kind == PEER_ANY ? PEER_GREETING : PEER_PROOF;
}

void peers_start(struct peers *peers, const struct message_peer *m, const struct message_mark *mark, int fd)
{
    const struct peer_failure full = {.kind = m->kind, .error = -EMFILE};
    struct preamble preamble = {.kind = m->kind, .id = peers->options.id};
    _cleanup_fd_ int owned = fd;
    uint32_t channel = 0;
    struct peer *peer;
    int r = 0;

    if (mark)
        preamble.mark = *mark;
    if (peers_connect(peers) && !requests_on_peer(peers->options.requests, m->kind, m->serial, &channel))
        return;
    if (!peers_connect(peers) && m->kind != PEER_ANY && !peers_admit(peers, &preamble))
        return;
    if (peers_connect(peers))
        r = make_mark(peers, m->kind, &preamble.mark);
    peer = take_slot(peers, preamble.mark.number != 0);
    if (!peer && peers_connect(peers))
        peers->events->failed(peers->userdata, &full);
    if (!peer)
        return;
    if (peers_connect(peers))
        requests_peer_endpoint(peers->options.requests, m->serial, m->endpoint, m->others);
    *peer = (struct peer){
        .peers = peers,
        .stage = first_stage(peers, m->kind),
        .kind = m->kind,
        .shared = m->shared != 0,
        .serial = m->serial,
        .channel = channel,
        .mark = preamble.mark,
        .since = turn_now(peers->options.event),
    };
    /* From here on the slot is in use, so that a failure goes the way of all: the request is tried elsewhere.
     */
    if (r >= 0)
        r = peer_begin(peer, fd_steal(&owned));
    if (r < 0)
        peer_fail(peer, r);
    else
        peer_drive(peer);
}

void peers_unpark(struct peers *peers, uint32_t channel)
{
    if (!channels_lives(peers->options.channels, channel) ||
        channels_is_connected(peers->options.channels, channel))
        return;
    for (size_t i = 0; i < PEERS_MAX; i++)
        if (peers->all[i].stage == PEER_PARKED && peers->all[i].channel == channel &&
            peer_unpark(&peers->all[i]))
            return;
}

void peers_expire(struct peers *peers)
{
    uint64_t now = turn_now(peers->options.event);

    for (size_t i = 0; i < PEERS_MAX && !*peers->options.halted; i++) {
        struct peer *peer = &peers->all[i];

        /* One that a caller brought waits for the source to use it. */
        if (peer->stage != PEER_UNUSED && peer->stage != PEER_GREETING && now - peer->since > PEER_DEADLINE)
            peer_fail(peer, -ETIMEDOUT);
    }
}

/* The peer may have noticed the loss first. */
static bool outlives_loss(const struct peer *peer)
{
    return peer->stage == PEER_GREETING || (!peers_connect(peer->peers) && peer->kind == PEER_RESUME);
}

void peers_drop(struct peers *peers)
{
    for (size_t i = 0; i < PEERS_MAX; i++) {
        struct peer *peer = &peers->all[i];

        if (peer->stage == PEER_UNUSED)
            continue;
        if (outlives_loss(peer))
            peer_watch(peer); /* one that came when all was halted is not waited for yet */
        else
            peer_clear(peer);
    }
}

void peers_quit(struct peers *peers)
{
    for (size_t i = 0; i < PEERS_MAX; i++)
        if (peers->all[i].stage != PEER_UNUSED && peers->all[i].carrier)
            carrier_watch(peers->all[i].carrier, 0);
}
