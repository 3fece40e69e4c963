/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "session.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "ktls.h"

enum { POOL_BLOCKS = 48 }; /* free blocks that are kept: a full window and what the return path holds */

uint64_t session_now(const struct session *session)
{
    uint64_t now = 0;

    sd_event_now(session->event, CLOCK_MONOTONIC, &now);
    return now;
}

uint64_t session_exact_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

void session_set_state(struct session *session, enum message_state state)
{
    if (session->over || state == session->state)
        return;
    session->state = state;
    sync_tell_state(session);
}

bool session_complete(const struct session *session)
{
    bool main_ended = session->main_closed;
    uint32_t lost = session->lost_streams;

    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++) {
        const struct channel *channel = &session->channels[i];

        if (!channel_lives(channel))
            continue;
        _cleanup_(worker_unlockp) struct worker *locked = channel_lock(channel);
        if (!channel_ended(channel))
            return false;
        if (!channel_has_carried(channel))
            continue;
        main_ended = main_ended || channel->stream == session->main_stream;
        if (!channel->stale)
            lost &= ~(1U << channel->stream);
    }
    return main_ended && lost == 0;
}

static int on_linger_end(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct session *session = userdata;

    (void)source;
    (void)usec;
    link_exit(session->link);
    return 0;
}

void session_end(struct session *session, enum vf_error error, bool tell_peer, const char *format, ...)
{
    union message m = {0};
    char text[2 * MESSAGE_TEXT_MAX];
    va_list args;

    if (session->over)
        return;
    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);

    if (tell_peer && session->control.carrier) {
        struct frame frame = {.type = FRAME_ABORT};
        uint8_t buf[FRAME_MAX];

        frame.refusal.error = error;
        message_text_set(frame.refusal.text, sizeof(frame.refusal.text), text);
        ring_append(&session->control.out, buf, frame_encode(&frame, buf)); /* control_linger() sends it */
    }
    session->over = true;
    session->state = STATE_FINISHED;
    session->tick = sd_event_source_disable_unref(session->tick);
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++)
        channel_quit(&session->channels[i]);
    /* A channel's that breaks must not reach the peer before the word that says why. */
    for (size_t i = 0; i < SESSION_PEERS_MAX; i++)
        if (session->peers[i].carrier)
            carrier_watch(session->peers[i].carrier, 0);

    m.result.result = vf_error_to_result(error);
    m.result.error = error;
    message_text_set(m.result.text, sizeof(m.result.text), text);
    /* The peer first: what the broker closes then must not tell it less. */
    if (sd_event_add_time_relative(session->event, &session->linger, CLOCK_MONOTONIC, SESSION_LINGER, 0,
                                   on_linger_end, session) < 0)
        link_exit(session->link);
    else
        control_linger(session);
    if (!link_send(session->link, MESSAGE_RESULT, &m, -1))
        link_log(session->link, LOG_NOTICE, "Migration %016" PRIx64 " ended without its broker: %s. %s",
                 session->id, vf_result_to_string(m.result.result), m.result.text);
}

/* Where the broker gives pipes, a channel's bytes are spliced if the helper does not encrypt them itself: in
 * to QEMU at the destination, out of it at the source, where they come before the connection that they are
 * for. */
static void on_pipe(struct session *session, const struct message_pipe *m, int fd)
{
    _cleanup_fd_ int owned = fd;
    struct channel *channel = channel_find(session, m->channel);
    int size = fcntl(fd, F_GETPIPE_SZ);

    if (size <= 0)
        return;
    if (session->role == ROLE_INCOMING) {
        _cleanup_(worker_unlockp) struct worker *locked = channel ? channel_lock(channel) : NULL;
        if (channel && channel->in.ring.pipe < 0 &&
            (session->security == SECURITY_PLAIN || size >= KTLS_PIPE_MIN))
            flow_use_pipe(&channel->in, fd_steal(&owned), (size_t)size, NULL);
    } else if (m->use == PIPE_KEEP) {
        if (keep_add(&session->next_keep, fd) >= 0)
            owned = -1;
    } else {
        fd_closep(&session->next_pipe);
        session->next_pipe = fd_steal(&owned);
    }
}

static size_t channels_in_pipes(const struct session *session)
{
    size_t n = 0;

    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++) {
        _cleanup_(worker_unlockp) struct worker *locked = channel_lock(&session->channels[i]);
        const struct flow *out = &session->channels[i].out;

        n += channel_lives(&session->channels[i]) && (out->keep.n > 0 || out->ring.keep.n > 0);
    }
    return n;
}

/* What the broker gave for this channel, which is new. */
static void take_pipes(struct session *session, struct channel *channel)
{
    _cleanup_fd_ int pipe = fd_steal(&session->next_pipe);
    _cleanup_(keep_clear) struct keep keep = keep_steal(&session->next_keep);
    int size = pipe >= 0 ? fcntl(pipe, F_GETPIPE_SZ) : 0;

    if (!channel || pipe < 0 || channels_in_pipes(session) >= PIPED_CHANNELS ||
        (!channel->out.forgetful && (keep.n == 0 || session->pool.null < 0)))
        return;
    flow_use_pipe(&channel->out, fd_steal(&pipe), (size_t)size, channel->out.forgetful ? NULL : &keep);
}

/* A connection to the local QEMU: a new one at the source, the one that was asked for at the destination. */
static void on_qemu(struct session *session, const struct message_qemu *m, int fd)
{
    _cleanup_fd_ int owned = fd;
    struct channel *channel;

    if (m->stream >= session->n_streams)
        return;
    if (session->role == ROLE_INCOMING) {
        channel = channel_dialled(session, m->channel, m->stream);
        if (!channel)
            return;
    } else if (session->done_said) {
        return; /* the migration is done, at the peer perhaps already */
    } else {
        channel = channel_new(session, session->next_channel, m->stream);
        take_pipes(session, channel);
        if (!channel) {
            link_log(session->link, LOG_WARNING,
                     "LimitExceeded: a connection of QEMU's on the stream '%s' was closed: "
                     "%u channels are the limit (max-channels).",
                     session->streams[m->stream], session->max_channels);
            return;
        }
        session->next_channel++;
    }
    channel_set_qemu(channel, fd_steal(&owned), m->shared != 0);
}

static void on_peer_failed(struct session *session, const struct message_peer_failed *m)
{
    /* Before the first control connection it is final; later the network may come back. */
    if (!session->adopted)
        session_end(session, m->error, true, "%s", m->text);
    else if (m->serial == session->resume_serial)
        session_redial(session);
    else if (sync_awaits_peer(session, PEER_CHANNEL, m->serial)) /* else it was for what is lost already */
        session_interrupt(session, "%s", m->text);
}

static void on_qemu_failed(struct session *session, const struct message_qemu_failed *m)
{
    struct channel *channel = channel_find(session, m->channel);

    if (m->stream >= session->n_streams)
        return;
    session->dialling &= ~(1U << m->stream);
    if (channel && channel->dial == DIAL_ASKED)
        session_end(session, m->error, true, "%s", m->text);
    else
        channel_dial(session, m->stream); /* that one was given up meanwhile */
}

/* The broker ends it. A source that is cut off goes on until it can tell its peer. */
static void on_end(struct session *session, const struct message_end *m)
{
    session_clean_up(session); /* the connection may be lost already, and the loop has yet to act upon it */
    if (session->over)
        return;
    if (session->role != ROLE_OUTGOING || session->state != STATE_INTERRUPTED || session->control.greeted) {
        session_end(session, m->error, true, "%s", m->text);
        return;
    }
    session->farewell = m->error;
    message_text_set(session->why, sizeof(session->why), m->text);
    session->resume_timer = sd_event_source_disable_unref(session->resume_timer);
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++)
        channel_give_up(&session->channels[i]);
    /* What the broker was dialling is closed with the migration, and is asked for again. */
    if (sync_awaits_peer(session, PEER_RESUME, session->resume_serial))
        session_redial(session);
}

static void on_message(struct link *link, const union message *m, int fd, void *userdata)
{
    struct session *session = userdata;
    _cleanup_fd_ int owned = fd;

    (void)link;
    if (session->over)
        return;
    switch (m->header.type) {
    case MESSAGE_PEER:
        if (m->peer.kind <= PEER_RESUME && (m->peer.kind != PEER_ANY || session->role == ROLE_INCOMING))
            peer_start(session, &m->peer, fd_steal(&owned));
        break;
    case MESSAGE_PEER_FAILED:
        on_peer_failed(session, &m->peer_failed);
        break;
    case MESSAGE_QEMU:
        on_qemu(session, &m->qemu, fd_steal(&owned));
        break;
    case MESSAGE_PIPE:
        on_pipe(session, &m->pipe, fd_steal(&owned));
        break;
    case MESSAGE_QEMU_FAILED:
        on_qemu_failed(session, &m->qemu_failed);
        break;
    case MESSAGE_LIMIT:
        pacer_set(&session->pacer, m->limit.bandwidth_limit, session_now(session));
        channel_share_out(session);
        channel_update_all(session);
        break;
    case MESSAGE_END:
        on_end(session, &m->end);
        break;
    case MESSAGE_SYNC:
        sync_answer(session, m->sync.cookie);
        break;
    default:
        break;
    }
}

/* A broker that is gone for good takes only what needs it: channels that are open go on to their end. */
static void on_gone(struct link *link, void *userdata)
{
    struct session *session = userdata;

    (void)link;
    if (session->over)
        return;
    if (sync_waits(session)) {
        session_end(session, VF_ERROR_HELPER_FAILED, true,
                    "The broker is gone, so that a connection that is needed cannot be made.");
        return;
    }
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++)
        if (session->channels[i].stage == CHANNEL_OPEN)
            return;
    session_end(session, VF_ERROR_HELPER_FAILED, true, "The broker is gone.");
}

/* Maps the page of counters; takes fd. */
static int map_stats(int fd, struct stats **ret)
{
    _cleanup_fd_ int owned = fd;
    int seals = fcntl(owned, F_GET_SEALS);
    void *p;

    /* Sealed against shrinking: nobody can make a write to it a SIGBUS. */
    if (seals < 0 || !(seals & F_SEAL_SHRINK) || lseek(owned, 0, SEEK_END) < (off_t)sizeof(struct stats))
        return -EBADMSG;
    p = mmap(NULL, sizeof(struct stats), PROT_READ | PROT_WRITE, MAP_SHARED, owned, 0);
    if (p == MAP_FAILED)
        return -errno;
    *ret = p;
    return 0;
}

static int check_start(const struct message_start_relay *start)
{
    if (start->role > ROLE_OUTGOING || start->security > SECURITY_PLAIN || start->n_streams == 0 ||
        start->n_streams > MESSAGE_STREAMS_MAX || start->max_channels == 0 ||
        start->max_channels > STATS_CHANNELS_MAX || start->window < WINDOW_MIN || start->window > WINDOW_MAX)
        return -EBADMSG;
    for (uint32_t i = 0; i < start->n_streams; i++)
        if (!memchr(start->streams[i], 0, MESSAGE_STREAM_MAX) || !stream_name_ok(start->streams[i]))
            return -EBADMSG;
    return 0;
}

int session_new(sd_event *event, struct link *link, struct workers *workers,
                const struct message_start_relay *start, int stats_fd, int null, struct session **ret)
{
    _cleanup_fd_ int owned = stats_fd;
    struct session *session;
    int r = check_start(start);

    if (r < 0)
        return r;
    session = calloc(1, sizeof(*session));
    if (!session)
        return -ENOMEM;
    session->event = event;
    session->link = link;
    session->workers = workers;
    session->id = start->id;
    session->role = start->role;
    session->security = start->security;
    session->max_channels = start->max_channels;
    session->resume_timeout = start->resume_timeout;
    session->window = (size_t)start->window;
    session->n_streams = start->n_streams;
    memcpy(session->streams, start->streams, sizeof(session->streams));
    session->pool =
        (struct ring_pool){.lock = PTHREAD_MUTEX_INITIALIZER, .null = null, .max_free = POOL_BLOCKS};
    session->next_pipe = -1;
    session->pacer = (struct pacer)PACER_INIT;
    pacer_set(&session->pacer, start->bandwidth_limit, session_now(session));

    r = map_stats(fd_steal(&owned), &session->stats);
    if (r >= 0)
        r = key_derive(start->secret, start->id,
                       session->security == SECURITY_PLAIN ? "vmferry control plain v1"
                                                           : "vmferry control tls v1",
                       session->control_key);
    if (r >= 0)
        r = channel_listen_to_workers(session);
    if (r >= 0)
        r = heartbeat_start(session);
    if (r < 0) {
        session_free(session);
        return r;
    }
    link_set_handlers(link, on_message, on_gone, session);
    if (session->role == ROLE_OUTGOING) {
        session->control_serial = ++session->next_serial;
        if (!sync_need_peer(session, PEER_CONTROL, session->control_serial))
            on_gone(link, session);
    }
    *ret = session;
    return 0;
}

struct session *session_free(struct session *session)
{
    if (!session)
        return NULL;
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++)
        channel_close(&session->channels[i]);
    for (size_t i = 0; i < SESSION_PEERS_MAX; i++)
        peer_clear(&session->peers[i]);
    control_clear(session);
    ring_pool_clear(&session->pool);
    fd_closep(&session->next_pipe);
    keep_clear(&session->next_keep);
    sd_event_source_disable_unref(session->news_source);
    sd_event_source_disable_unref(session->tick);
    sd_event_source_disable_unref(session->ack_timer);
    sd_event_source_disable_unref(session->pace_timer);
    sd_event_source_disable_unref(session->linger);
    sd_event_source_disable_unref(session->cleanup);
    sd_event_source_disable_unref(session->redial_timer);
    sd_event_source_disable_unref(session->resume_timer);
    if (session->stats)
        munmap(session->stats, sizeof(*session->stats));
    explicit_bzero(session->control_key, sizeof(session->control_key));
    explicit_bzero(session->channel_key, sizeof(session->channel_key));
    explicit_bzero(session->resume_key, sizeof(session->resume_key));
    free(session);
    return NULL;
}
