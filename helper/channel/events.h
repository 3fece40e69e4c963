/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the channels stand on, and what they tell the session. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "common/error.h"
#include "common/message.h"
#include "common/stats.h"
#include "common/stream-names.h"
#include "helper/carrier/pool.h"
#include "helper/carrier/worker.h"
#include "helper/control/control.h"
#include "helper/link.h"
#include "helper/requests.h"

struct channels;

/* What the session has to know. */
struct channel_events {
    /* A channel has both of its connections. */
    void (*active)(void *userdata);
    /* One is closed: it is proved at both sides, or the peer has refused it. */
    void (*ended)(void *userdata);
    /* The peer connection of one is lost. */
    void (*lost)(void *userdata, const char *why);
    /* QEMU's connection of one is lost: whether the owner may be about to say that it has cancelled, which
     * channels_look_again() comes after. */
    bool (*awaits_cancel)(void *userdata);
    /* One cannot go on, and so the migration cannot. */
    void (*failed)(void *userdata, enum vf_error error, const char *why);
    /* The peer has refused one, and so the migration. */
    void (*refused)(void *userdata, enum vf_error error, const char *why);
    /* The peer has said what cannot be true of this channel. */
    void (*violated)(void *userdata, uint32_t channel, const char *what);
};

struct channels_options {
    sd_event *event; /* borrowed, as all that follows */
    struct link *link;
    struct workers *workers;
    struct control *control;
    struct requests *requests;
    struct ring_pool *pool;
    struct stats *page;
    const struct stream_names *streams;
    const struct stream_names *peer_streams; /* destination: the source's, once it has greeted */
    const bool *halted; /* while it is true, nothing is read, sent or waited for any more */
    enum message_role role;
    enum message_security security;
    uint32_t max_channels;
    size_t window;  /* bytes from QEMU that a channel keeps, at most */
    bool resumes;   /* the migration goes on after a loss */
    uint64_t limit; /* bytes/s of what comes from QEMU; 0: none */
};
