/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * QEMU's sockets of one migration. An outgoing one listens on each for QEMU (stream-listen.c); an incoming
 * one connects to QEMU on each, for one channel at a time (stream-dial.c). streams.c makes and closes all of
 * them.
 */

#include "broker/log-sample.h"
#include "broker/migration/helper-side.h"
#include "broker/migration/options.h"
#include "broker/migration/queue.h"
#include "broker/migration/registry.h"
#include "broker/migration/services.h"
#include "broker/sockets/qemu-socket.h"

/* One named socket of QEMU's. */
struct stream {
    struct streams *all;
    uint32_t index;
    char path[QEMU_SOCKET_PATH_MAX]; /* "": its sockets come by OpenStream and AddStream */
    sd_event_source *retry;          /* of accepting, or of connecting */
    /* Outgoing. */
    int listener; /* owned; −1: none */
    sd_event_source *accept;
    /* Incoming. */
    bool dialling; /* for this channel, until the deadline */
    uint32_t channel;
    uint64_t deadline;     /* µs, CLOCK_MONOTONIC */
    uint64_t pause;        /* µs until the next try */
    int dial;              /* owned; the socket that tries it, stored before it is connected; −1 */
    uint32_t dial_channel; /* for which that socket is */
    struct queue supplied;
};

struct streams {
    const struct migration_services *services; /* borrowed, as all but the directory */
    struct entry *entry;
    const struct options *options;
    struct helper_side *helper;
    struct socket_owner owner;
    char *directory;              /* owned; of the default sockets; NULL: none was made */
    struct log_sample strangers;  /* connections of others than the owner */
    struct log_sample over_quota; /* connections beyond MaxChannelsPerUser=, MaxChannelsInAll= */
    struct stream each[MESSAGE_STREAMS_MAX];
};

/* Its name. */
const char *stream_name(const struct stream *stream);

/* What its path may lead to: anything in the directory that was made for its migration; else what the caller
 * that named it may name (deputy.h). */
int stream_scope(const struct stream *stream, struct socket_scope *ret);
