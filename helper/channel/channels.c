/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/channel/channels.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <syslog.h>

#include "common/cleanup.h"
#include "helper/channel/acks.h"
#include "helper/channel/break-off.h"
#include "helper/channel/channel.h"
#include "helper/channel/internal.h"
#include "helper/channel/opening.h"
#include "helper/channel/table.h"

/* ---- The session ---- */

static void update_all(struct channels *channels)
{
    for (size_t i = 0; i < STATS_CHANNELS_MAX && !channels_halted(channels); i++)
        channel_update(&channels->all[i]);
}

static void on_round(void *userdata)
{
    struct channels *channels = userdata;

    /* First of all, so that each channel sees that there is something to be had again. */
    pace_next_round(&channels->pace, channels->n_living);
    update_all(channels);
}

/* A worker has moved the bytes already; what follows from that is said by the first thread alone. */
static void on_news(void *userdata, size_t slot)
{
    struct channels *channels = userdata;

    channel_settle(&channels->all[slot]);
}

static void on_owed(void *userdata, size_t slot)
{
    struct channels *channels = userdata;

    if (!channels_halted(channels))
        channel_ack_in_time(&channels->all[slot]);
}

static const struct crew_events crew_events = {.settle = on_news, .owes_ack = on_owed};

int channels_new(const struct channels_options *options, const struct channel_events *events, void *userdata,
                 struct channels **ret)
{
    struct channels *channels = calloc(1, sizeof(*channels));
    int r;

    if (!channels)
        return -ENOMEM;
    channels->options = *options;
    channels->events = events;
    channels->userdata = userdata;
    pace_init(&channels->pace, options->event, on_round, channels);
    pace_set_limit(&channels->pace, options->limit);
    r = crew_new(options->event, options->workers, &crew_events, channels, &channels->crew);
    if (r < 0) {
        free(channels);
        return r;
    }
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++)
        crew_set_relay(channels->crew, i, &channels->all[i].relay);
    *ret = channels;
    return 0;
}

struct channels *channels_free(struct channels *channels)
{
    if (!channels)
        return NULL;
    /* First: channel_close() locks by the crew's table of owners, and takes the slot back from its worker. */
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++)
        channel_close(&channels->all[i]);
    pace_clear(&channels->pace);
    sd_event_source_disable_unref(channels->ack_timer);
    crew_free(channels->crew);
    free(channels);
    return NULL;
}

void channels_connect(struct channels *channels, unsigned connection)
{
    channels->connection = connection;
    channels->again = connection > 1;
    if (channels->options.role == ROLE_OUTGOING)
        channels_announce_all(channels);
}

/*
 * The epochs: channel->said_… and heard_… hold the number of the control connection on which a frame went or
 * came, and a frame counts only while that is channels->connection. So nothing has to be reset here. (Only
 * heard_close counts for ever: what the peer has proved once stays proved.)
 *
 *     connection            1      0      2      0      3
 *     said_open == 1      said    no     no     no     no      OPEN is sent again on 2
 *     said_close == 2       .      .    said    no     no      CLOSE is sent again on 3
 */
void channels_disconnect(struct channels *channels)
{
    channels->connection = 0;
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++) {
        struct channel *channel = &channels->all[i];

        if (!channel_lives(channel))
            continue;
        _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);
        relay_detach(&channel->relay);
        channel->dial_timer = sd_event_source_disable_unref(channel->dial_timer);
    }
}

void channels_give_up(struct channels *channels)
{
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++)
        channel_abandon(&channels->all[i]);
}

/*
 * The migration is over: QEMU's connections are closed, so that QEMU learns of it now, not when the last
 * frame has reached the peer. Peer connections stay open and unread until the process ends. The worker's lock
 * is held while its slot is taken back: the worker looks at the owner only after it has the lock, and leaves
 * it alone.
 */
void channels_quit(struct channels *channels)
{
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++) {
        struct channel *channel = &channels->all[i];

        if (!channel_lives(channel))
            continue;
        _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);
        relay_quit(&channel->relay);
        crew_take_back(channels->crew, i);
    }
}

void channels_set_limit(struct channels *channels, uint64_t limit)
{
    pace_set_limit(&channels->pace, limit);
    on_round(channels);
}

void channels_limit_number(struct channels *channels, uint32_t max)
{
    if (max < channels->options.max_channels)
        channels->options.max_channels = max;
}

void channels_set_main_stream(struct channels *channels, uint32_t stream)
{
    channels->main_stream = stream;
}

bool channels_are_complete(const struct channels *channels)
{
    bool main_ended = channels->main_ended;
    uint32_t lost = channels->lost_streams;

    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++) {
        const struct channel *channel = &channels->all[i];

        if (!channel_lives(channel))
            continue;
        _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);
        if (!relay_ended(&channel->relay) || channel_is_short(channel))
            return false;
        if (!relay_has_carried(&channel->relay))
            continue;
        main_ended = main_ended || channel->stream == channels->main_stream;
        if (channel_replaces(channel))
            lost &= ~(1U << channel->stream);
    }
    return main_ended && lost == 0;
}

void channels_look_again(struct channels *channels)
{
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++)
        channel_settle(&channels->all[i]);
}

bool channels_is_any_living(const struct channels *channels)
{
    return channels->n_living > 0;
}

bool channels_is_any_open(const struct channels *channels)
{
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++)
        if (channels->all[i].stage == CHANNEL_OPEN)
            return true;
    return false;
}

bool channels_has_any_been(const struct channels *channels)
{
    return channels->next != 0;
}

/* ---- The broker ---- */

void channels_add_qemu(struct channels *channels, uint32_t stream, int fd, bool shared)
{
    _cleanup_fd_ int owned = fd;
    struct channel *channel = channel_new(channels, channels->next, stream);

    if (!channel) {
        link_log(channels->options.link, LOG_WARNING,
                 "LimitExceeded: a connection of QEMU's on the stream '%s' was closed: "
                 "%u channels are the limit (max-channels).",
                 channels->options.streams->names[stream], channels->options.max_channels);
        return;
    }
    channels->next++;
    channel_set_qemu(channel, fd_steal(&owned), shared);
}

void channels_on_qemu(struct channels *channels, uint32_t number, uint32_t stream, int fd, bool shared)
{
    _cleanup_fd_ int owned = fd;
    struct channel *channel = NULL;

    if (requests_on_qemu(channels->options.requests, number, stream))
        channel = channel_find(channels, number);
    /* The channel that it was for was given up meanwhile. QEMU has accepted the connection all the same and
     * waits for bytes on it: it becomes the next channel's. */
    if (!channel)
        channel = channel_to_dial(channels, stream);
    if (channel)
        channel_set_qemu(channel, fd_steal(&owned), shared);
}

bool channels_on_qemu_failed(struct channels *channels, uint32_t number, uint32_t stream)
{
    if (requests_on_qemu(channels->options.requests, number, stream))
        return true;
    channels_dial_stream(channels, stream);
    return false;
}

void channels_dial(struct channels *channels)
{
    for (uint32_t i = 0; i < channels->options.streams->n && !channels_halted(channels); i++)
        channels_dial_stream(channels, i);
}

/* A destination splices a channel's bytes to QEMU through a pipe that its broker gives. Brokers of before
 * give more: pipes for a source, and in `tls`. */
void channels_on_pipe(struct channels *channels, const struct message_pipe *m, int fd)
{
    _cleanup_fd_ int owned = fd;
    struct channel *channel = channel_find(channels, m->channel);
    int size = fcntl(fd, F_GETPIPE_SZ);

    if (size <= 0 || channels->options.role != ROLE_INCOMING ||
        channels->options.security != SECURITY_PLAIN || m->use != PIPE_MOVE || !channel)
        return;
    _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);
    relay_use_pipe(&channel->relay, fd_steal(&owned), (size_t)size);
}

/* ---- The peer ---- */

bool channels_lives(struct channels *channels, uint32_t number)
{
    return channel_find(channels, number) != NULL;
}

bool channels_is_connected(struct channels *channels, uint32_t number)
{
    const struct channel *channel = channel_find(channels, number);

    return channel && relay_peer(&channel->relay);
}

uint64_t channels_received(struct channels *channels, uint32_t number)
{
    const struct channel *channel = channel_find(channels, number);

    if (!channel)
        return 0;
    _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);
    return relay_received(&channel->relay);
}

/* Checks before it changes anything: the offset comes from the peer, and a channel that is alive must not be
 * rewound by a second connection. */
int channels_resume(struct channels *channels, uint32_t number, uint64_t received)
{
    struct channel *channel = channel_find(channels, number);

    if (!channel)
        return received == 0 ? 0 : -EBADMSG;
    if (relay_peer(&channel->relay))
        return -EEXIST;
    _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);
    return relay_resume(&channel->relay, received) ? -EBADMSG : 1;
}

bool channels_dial_again(struct channels *channels, uint32_t number)
{
    struct channel *channel = channel_find(channels, number);

    return channel && channel_dial_again(channel);
}

void channels_set_peer(struct channels *channels, uint32_t number, struct carrier *carrier)
{
    struct channel *channel = channel_find(channels, number);

    if (channel)
        channel_set_peer(channel, carrier);
    else
        carrier_free(carrier); /* it was taken */
}
