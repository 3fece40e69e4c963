/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Candidates for peer connections, of one side. The test is the network; `plain` proves. */

#include "channels-rig.h"

#include "helper/carrier/plain.h"
#include "helper/peer/internal.h"
#include "helper/peer/peers.h"
#include "helper/protocol/greeting.h"

enum { ID = 0x1234 };

static const uint8_t good[KEY_SIZE] = "the key that both ends hold";
static const uint8_t wrong[KEY_SIZE] = "another key";

struct rig {
    struct channels_rig *side;
    struct peers *peers;
    int n_proved, n_failed;
    enum peer_kind proved;
    struct peer_failure failure;
    struct preamble preamble; /* source: the last that it sent */
};

static inline void on_proved(void *userdata, enum peer_kind kind, struct carrier *carrier)
{
    struct rig *rig = userdata;

    rig->n_proved++;
    rig->proved = kind;
    carrier_free(carrier);
}

static inline void on_failed(void *userdata, const struct peer_failure *failure)
{
    struct rig *rig = userdata;

    rig->n_failed++;
    rig->failure = *failure;
}

static const struct peer_events events = {.proved = on_proved, .failed = on_failed};

static inline struct rig *peers_rig_new(enum message_role role)
{
    struct rig *rig = calloc(1, sizeof(*rig));

    assert_non_null(rig);
    rig->side = rig_new(role, true);
    const struct peers_options options = {
        .event = rig->side->desk.event,
        .link = &rig->side->desk.link,
        .pool = &rig->side->pool,
        .channels = rig->side->channels,
        .requests = rig->side->requests,
        .halted = &rig->side->halted,
        .id = ID,
        .role = role,
        .security = SECURITY_PLAIN,
    };
    rig->peers = peers_new(&options, &events, rig);
    assert_non_null(rig->peers);
    peers_set_key(rig->peers, PEER_CONTROL, good);
    return rig;
}

static inline void peers_rig_freep(struct rig **rig)
{
    peers_free((*rig)->peers);
    rig_freep(&(*rig)->side);
    free(*rig);
}

#define _cleanup_peers_ __attribute__((cleanup(peers_rig_freep))) struct rig *

/* The other helper, over this socket: it proves that it holds the key. */
static inline struct carrier *rig_proves(struct rig *rig, int fd, enum peer_kind kind, bool connecting,
                                         const uint8_t *key)
{
    struct preamble preamble = {.kind = kind, .id = ID};
    struct carrier *carrier;
    int r = -EAGAIN;

    assert_int_equal(carrier_plain_new(fd, connecting, &preamble, key, &carrier), 0);
    for (int i = 0; i < 10 && r == -EAGAIN; i++) {
        r = carrier->ops->handshake(carrier);
        desk_run(&rig->side->desk);
    }
    if (r == 0)
        return carrier;
    carrier_free(carrier);
    desk_run(&rig->side->desk);
    return NULL;
}

static inline bool is_closed(int fd)
{
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);

    return n == 0 || (n < 0 && errno == ECONNRESET);
}

static inline size_t n_used(const struct rig *rig)
{
    size_t n = 0;

    for (size_t i = 0; i < PEERS_MAX; i++)
        n += rig->peers->all[i].stage != PEER_UNUSED;
    return n;
}
