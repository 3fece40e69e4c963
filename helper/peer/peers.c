/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/peer/peers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

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

void peers_set_key(struct peers *peers, enum peer_kind kind, const uint8_t key[static KEY_SIZE])
{
    memcpy(peers->keys[kind].key, key, KEY_SIZE);
    peers->keys[kind].state = KEY_SERVES;
}

void peers_use_key(struct peers *peers, enum peer_kind kind)
{
    peers->keys[kind].state = KEY_USED;
}

void peers_drop_key(struct peers *peers, enum peer_kind kind)
{
    peers->keys[kind].state = KEY_NONE;
    explicit_bzero(peers->keys[kind].key, KEY_SIZE);
}

static bool has_proved_nothing(const struct peer *peer)
{
    return !peers_connect(peer->peers) && (peer->stage == PEER_PROOF || peer->stage == PEER_LINGER);
}

/* A free slot; where none is, that of the oldest connection that has proved nothing. NULL without one. */
static struct peer *take_slot(struct peers *peers)
{
    struct peer *oldest = NULL;

    for (size_t i = 0; i < PEERS_MAX; i++) {
        struct peer *peer = &peers->all[i];

        if (peer->stage == PEER_UNUSED)
            return peer;
        if (has_proved_nothing(peer) && (!oldest || peer->since < oldest->since))
            oldest = peer;
    }
    if (oldest)
        peer_fail(oldest, -ETIMEDOUT);
    return oldest;
}

static enum peer_stage first_stage(const struct peers *peers, uint32_t kind)
{
    if (peers_connect(peers))
        return PEER_PREAMBLE;
    return kind == PEER_ANY ? PEER_GREETING : PEER_PROOF;
}

void peers_start(struct peers *peers, const struct message_peer *m, int fd)
{
    const struct peer_failure full = {.kind = m->kind, .error = -EMFILE};
    _cleanup_fd_ int owned = fd;
    uint32_t channel = 0;
    struct peer *peer;
    int r;

    if (peers_connect(peers) && !requests_on_peer(peers->options.requests, m->kind, m->serial, &channel))
        return;
    if (!peers_connect(peers) && m->kind != PEER_ANY && peers->keys[m->kind].state == KEY_NONE)
        return;
    peer = take_slot(peers);
    if (!peer && peers_connect(peers))
        peers->events->failed(peers->userdata, &full);
    if (!peer)
        return;
    *peer = (struct peer){
        .peers = peers,
        .stage = first_stage(peers, m->kind),
        .kind = m->kind,
        .shared = m->shared != 0,
        .serial = m->serial,
        .channel = channel,
        .since = turn_now(peers->options.event),
    };
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
    for (size_t i = 0; i < PEERS_MAX; i++)
        if (peers->all[i].stage != PEER_UNUSED && !outlives_loss(&peers->all[i]))
            peer_clear(&peers->all[i]);
}

void peers_quit(struct peers *peers)
{
    for (size_t i = 0; i < PEERS_MAX; i++)
        if (peers->all[i].stage != PEER_UNUSED && peers->all[i].carrier)
            carrier_watch(peers->all[i].carrier, 0);
}
