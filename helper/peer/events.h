/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the candidates stand on, and what they tell the session. */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/message.h"
#include "helper/carrier/carrier.h"
#include "helper/carrier/pool.h"
#include "helper/channel/channels.h"
#include "helper/link.h"
#include "helper/requests.h"

struct peers;

/* A connection that this side made, and why it came to nothing. */
struct peer_failure {
    enum peer_kind kind;
    uint32_t channel;  /* of a channel's */
    int error;         /* a negative errno; -ECONNREFUSED: the peer's gate has rejected it, see rejected */
    uint32_t rejected; /* enum vf_error */
    bool brought;      /* a caller has brought it: there may be no other one */
    bool believed;     /* nothing but the peer has said so: see requests_try_next() */
};

struct peer_events {
    /* A control connection, the first or one that follows it, has proved itself: takes it. A channel's goes
     * to its channel. */
    void (*proved)(void *userdata, enum peer_kind kind, struct carrier *carrier);
    void (*failed)(void *userdata, const struct peer_failure *failure);
};

struct peers_options {
    sd_event *event; /* borrowed, as all that follows */
    struct link *link;
    struct ring_pool *pool;
    struct channels *channels;
    struct requests *requests;
    const bool *halted;
    const struct aead_choice *aeads;
    uint64_t id; /* of the migration */
    enum message_role role;
    enum message_security security;
};
