/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The counters of one migration: a page in a sealed memfd that the broker makes, its helper writes and the
 * broker reads. So polling a property costs no message, the numbers are of this moment, and they outlive the
 * broker. The broker trusts nothing in it beyond being numbers: all indices are checked when read.
 *
 * Every field is read and written on its own (relaxed atomics): there is no consistent picture over two
 * fields until the migration is finished.
 */

#include <stdint.h>

#define STATS_CHANNELS_MAX 256

/* What a channel is doing; the text of it in the Channels property stands in broker/bus/properties.c.
 */
enum stats_channel_state {
    STATS_CHANNEL_UNUSED = 0,
    STATS_CHANNEL_OPENING = 1, /* one end is still missing */
    STATS_CHANNEL_OPEN = 2,
    STATS_CHANNEL_CLOSED = 3, /* both flows ended, both ledgers agree */
    STATS_CHANNEL_LOST = 4,
};

struct stats_channel {
    uint32_t number;
    uint16_t stream;   /* index into the migration's streams */
    uint16_t state;    /* enum stats_channel_state */
    uint64_t sent;     /* bytes taken from the local QEMU */
    uint64_t received; /* bytes delivered to the local QEMU */
};

struct stats {
    uint64_t sent;            /* bytes, all channels */
    uint64_t received;        /* bytes, all channels */
    uint64_t rate;            /* bytes/s in both directions over the last interval of about a second */
    uint64_t rate_at_usec;    /* CLOCK_MONOTONIC when rate was computed */
    uint64_t round_trip_usec; /* of the last ping on the control connection; 0 = none yet */
    uint32_t reconnects;
    uint32_t n_channels; /* used entries of channels[] */
    struct stats_channel channels[STATS_CHANNELS_MAX];
};

#define STATS_READ(field)         __atomic_load_n(&(field), __ATOMIC_RELAXED)
#define STATS_WRITE(field, value) __atomic_store_n(&(field), (value), __ATOMIC_RELAXED)
#define STATS_ADD(field, value)   __atomic_fetch_add(&(field), (value), __ATOMIC_RELAXED)
