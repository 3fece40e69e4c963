/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The table of channels. It has a fixed size inside one struct, so that nothing that an event handler holds
 * can be freed under it.
 *
 *     channels.c   what the session and the peers ask for
 *     frames.c     what the peer says of channels
 *     channel.c    one channel after an event: moves its bytes, says what follows, ends it
 *     break-off.c  a connection that QEMU closes before its main one
 *     opening.c    the source announces, the destination dials QEMU, one channel of a stream at a time
 *     acks.c       acknowledgements, at once or collected
 *     pace.c       the bandwidth limit
 *     table.c      slots: taken, found, closed
 *
 * What is said and heard is marked with the number of the control connection on which it was: a connection
 * that is lost may have lost it too, so it counts for that connection only, and may be said once more on the
 * next.
 */

#include <systemd/sd-event.h>

#include "helper/channel/events.h"
#include "helper/channel/pace.h"
#include "helper/relay/crew.h"
#include "helper/relay/relay.h"

enum channel_stage {
    CHANNEL_UNUSED,
    CHANNEL_OPENING,  /* one of its two connections is missing */
    CHANNEL_OPEN,     /* it had both; after a loss the peer connection may be missing */
    CHANNEL_PROVED,   /* ended well; its numbers stay in the stats page, and the slot may be used again */
    CHANNEL_GIVEN_UP, /* ended otherwise, likewise */
};

/* How long a destination has waited for the first bytes of a channel before it dials QEMU. */
enum channel_grace {
    GRACE_NOT_BEGUN,
    GRACE_RUNS,
    GRACE_OVER,
};

struct channel {
    struct channels *channels;
    enum channel_stage stage;
    enum channel_grace grace;
    sd_event_source *grace_timer;
    sd_event_source *dial_timer; /* source: until the peer is dialled once more */
    unsigned n_dials;            /* for the connection that is missing */
    uint64_t dialled;            /* the first of them, µs */
    uint32_t number;
    uint32_t stream;
    bool broken_off; /* by QEMU, before the one that leads its stream */
    bool spared;     /* then: without a short rest */
    /* Numbers of control connections; 0: never. */
    unsigned said_open;   /* source: OPEN was sent and a peer connection asked for */
    unsigned said_close;  /* both flows are proved at this side */
    unsigned heard_open;  /* destination */
    unsigned heard_close; /* both flows are proved at the other side */
    struct relay relay;
};

struct channels {
    struct channels_options options;
    const struct channel_events *events;
    void *userdata;
    struct crew *crew; /* owned */
    struct pace pace;
    sd_event_source *ack_timer;
    unsigned connection; /* the number of the control connection; 0 while the peer cannot be told anything */
    bool again;          /* it is not the migration's first */
    uint32_t n_living;
    uint32_t next;         /* number that no channel has had */
    uint32_t main_stream;  /* the source's first */
    bool main_ended;       /* a channel of that has ended well */
    uint32_t first_ended;  /* then: the lowest number of these */
    uint32_t lost_streams; /* bits: a channel was given up, and none has ended well in its place */
    unsigned gave_up; /* the number of the control connection on which the peer last said that it has given
                         up what it had; 0: never */
    struct channel all[STATS_CHANNELS_MAX];
};

static inline bool channel_lives(const struct channel *channel)
{
    return channel->stage == CHANNEL_OPENING || channel->stage == CHANNEL_OPEN;
}

/* The peer may know of it, and have taken bytes for it from its QEMU. */
static inline bool channel_is_known(const struct channel *channel)
{
    return channel->said_open != 0 || channel->heard_open != 0;
}

/* In place of what the peer has given up it can only have a channel that was attached on that control
 * connection or a later one: what it had before is what it has given up. */
static inline bool channel_replaces(const struct channel *channel)
{
    return relay_connection(&channel->relay) >= channel->channels->gave_up;
}

static inline size_t channel_slot(const struct channel *channel)
{
    return (size_t)(channel - channel->channels->all);
}

/* Locks the relay; for worker_unlockp(). */
static inline struct worker *channel_lock(const struct channel *channel)
{
    return channel->channels ? crew_lock(channel->channels->crew, channel_slot(channel)) : NULL;
}

/* Nothing is to be read, sent or waited for now. */
static inline bool channels_halted(const struct channels *channels)
{
    return *channels->options.halted;
}

/* On the control connection that there is now. */
static inline bool channel_is_said(const struct channel *channel, unsigned when)
{
    return when != 0 && when == channel->channels->connection;
}
