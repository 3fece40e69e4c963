/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/session/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "helper/session/complete.h"
#include "helper/session/end.h"
#include "helper/session/failure.h"
#include "helper/session/frames.h"
#include "helper/session/internal.h"
#include "helper/session/messages.h"
#include "helper/session/resume.h"
#include "helper/session/tick.h"

enum { POOL_BLOCKS = 48 }; /* free blocks that are kept: a full window and what the return path holds */

/* ---- What the objects tell ---- */

static void on_no_frame(void *userdata, const char *what)
{
    session_end(userdata, VF_ERROR_PROTOCOL_MISMATCH, true, "The peer sent %s. " ADVICE, what);
}

static void on_drained(void *userdata)
{
    struct session *session = userdata;

    link_exit(session->link);
}

static const struct control_events control_events = {
    .frame = session_on_frame, .lost = session_on_lost, .violated = on_no_frame, .drained = on_drained};

static void on_active(void *userdata)
{
    struct session *session = userdata;

    session_set_state(session, STATE_ACTIVE);
    if (session->recovery.stage == RECOVERY_AWAITS_QEMU)
        session_set_recovery(session, RECOVERY_NONE);
}

static void on_channel_lost(void *userdata, const char *why)
{
    session_interrupt(userdata, "%s", why);
}

static void on_channel_failed(void *userdata, enum vf_error error, const char *why)
{
    session_end(userdata, error, true, "%s", why);
}

static void on_channel_refused(void *userdata, enum vf_error error, const char *why)
{
    session_end(userdata, error, false, "%s", why);
}

static const struct channel_events channel_events = {
    .active = on_active,
    .ended = session_end_if_complete,
    .lost = on_channel_lost,
    .awaits_cancel = session_awaits_cancel,
    .failed = on_channel_failed,
    .refused = on_channel_refused,
    .violated = session_end_violated,
};

static const struct peer_events peer_events = {.proved = session_on_proved, .failed = session_on_peer_failed};

/* ---- Its making ---- */

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

static int make_channels(struct session *session, struct workers *workers,
                         const struct message_start_relay *start)
{
    const struct channels_options options = {
        .event = session->event,
        .link = session->link,
        .workers = workers,
        .control = session->control,
        .requests = session->requests,
        .pool = &session->pool,
        .page = session->counters.page,
        .streams = &session->streams,
        .peer_streams = &session->peer_streams,
        .halted = &session->halted,
        .role = session->role,
        .security = start->security,
        .max_channels = session->max_channels,
        .window = (size_t)start->window,
        .resumes = session->recovery.timeout > 0,
        .limit = start->bandwidth_limit,
    };

    return channels_new(&options, &channel_events, session, &session->channels);
}

static int make_peers(struct session *session, const struct aead_choice *aeads,
                      const struct message_start_relay *start)
{
    const struct peers_options options = {
        .event = session->event,
        .link = session->link,
        .pool = &session->pool,
        .channels = session->channels,
        .requests = session->requests,
        .halted = &session->halted,
        .aeads = aeads,
        .id = session->id,
        .role = session->role,
        .security = start->security,
    };
    uint8_t key[KEY_SIZE];
    int r;

    session->peers = peers_new(&options, &peer_events, session);
    if (!session->peers)
        return -ENOMEM;
    r = key_derive(start->secret, session->id,
                   start->security == SECURITY_PLAIN ? "vmferry control plain v1" : "vmferry control tls v1",
                   key);
    if (r >= 0)
        r = peers_set_key(session->peers, PEER_CONTROL, key);
    explicit_bzero(key, sizeof(key));
    return r;
}

static int set_up(struct session *session, struct workers *workers, const struct aead_choice *aeads,
                  const struct message_start_relay *start, int stats_fd)
{
    int r = counters_map(&session->counters, stats_fd);

    if (r < 0)
        return r;
    session->requests = requests_new(session->link);
    session->kept = kept_new();
    if (!session->requests || !session->kept)
        return -ENOMEM;
    r = control_new(session->event, &session->pool, &session->halted, &control_events, session,
                    &session->control);
    if (r >= 0)
        r = make_channels(session, workers, start);
    if (r >= 0)
        r = make_peers(session, aeads, start);
    return r < 0 ? r : session_start_ticks(session);
}

int session_new(sd_event *event, struct link *link, struct workers *workers, const struct aead_choice *aeads,
                const struct message_start_relay *start, int stats_fd, struct session **ret)
{
    _cleanup_fd_ int owned = stats_fd;
    struct session *session;
    int r = check_start(start);
    bool asked;

    if (r < 0)
        return r;
    session = calloc(1, sizeof(*session));
    if (!session)
        return -ENOMEM;
    session->event = event;
    session->link = link;
    session->id = start->id;
    session->role = start->role;
    session->max_channels = start->max_channels;
    session->recovery.timeout = start->resume_timeout;
    session->redial.wait = REDIAL_FIRST;
    session->streams.n = start->n_streams;
    memcpy(session->streams.names, start->streams, sizeof(session->streams.names));
    session->pool = (struct ring_pool){.lock = PTHREAD_MUTEX_INITIALIZER, .max_free = POOL_BLOCKS};
    r = set_up(session, workers, aeads, start, fd_steal(&owned));
    if (r < 0) {
        session_free(session);
        return r;
    }
    /* Only now: until here a loss of the broker is helper.c's, and frees no session. */
    link_set_handlers(link, session_on_message, session_on_broker_gone, session);
    if (session->role == ROLE_OUTGOING) {
        requests_ask_peer(session->requests, PEER_CONTROL, 0, &asked);
        if (!asked)
            session_on_broker_gone(link, NULL, session);
    }
    *ret = session;
    return 0;
}

struct session *session_free(struct session *session)
{
    if (!session)
        return NULL;
    /* Against the order of making: peers hold channels and requests, channels hold control, requests and the
     * pool, into which all of their rings give back. */
    session->peers = peers_free(session->peers);
    session->channels = channels_free(session->channels);
    session->control = control_free(session->control);
    session->requests = requests_free(session->requests);
    session->kept = kept_free(session->kept);
    ring_pool_clear(&session->pool);
    sd_event_source_disable_unref(session->tick);
    sd_event_source_disable_unref(session->cleanup);
    sd_event_source_disable_unref(session->recovery.timer);
    sd_event_source_disable_unref(session->ending.linger);
    sd_event_source_disable_unref(session->redial.timer);
    session_drop_holds(session);
    counters_unmap(&session->counters);
    free(session);
    return NULL;
}
