/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/session/messages.h"

#include "common/cleanup.h"
#include "helper/session/complete.h"
#include "helper/session/end.h"
#include "helper/session/failure.h"
#include "helper/session/outcome.h"
#include "helper/session/redial.h"
#include "helper/session/resume.h"

/* A connection to the local QEMU: a new one at the source, the one that was asked for at the destination. */
static void on_qemu(struct session *session, const struct message_qemu *m, int fd)
{
    _cleanup_fd_ int owned = fd;

    if (m->stream >= session->streams.n)
        return;
    if (session->role == ROLE_INCOMING)
        channels_on_qemu(session->channels, m->channel, m->stream, fd_steal(&owned), m->shared != 0);
    else if (session->said_close == 0) /* else the migration is done, at the peer perhaps already */
        channels_add_qemu(session->channels, m->stream, fd_steal(&owned), m->shared != 0);
}

static void on_peer(struct session *session, const struct message_peer *m, int fd)
{
    _cleanup_fd_ int owned = fd;

    if (m->kind <= PEER_RESUME && (m->kind != PEER_ANY || session->role == ROLE_INCOMING))
        peers_start(session->peers, m, NULL, fd_steal(&owned));
}

static void on_peer_failed(struct session *session, const struct message_peer_failed *m)
{
    uint32_t channel;
    struct peer_no no;

    /* What an endpoint has said that could be reached. */
    if (requests_last_no(session->requests, m->serial, &no) &&
        (session->connections == 0 || requests_awaits_peer(session->requests, PEER_RESUME, m->serial))) {
        if (requests_on_peer(session->requests, PEER_CONTROL, m->serial, &channel))
            requests_end_peer(session->requests, m->serial); /* it may be asked for anew */
        session_on_peer_failed(session, &(struct peer_failure){
                                            .kind = session->connections == 0 ? PEER_CONTROL : PEER_RESUME,
                                            .error = no.error,
                                            .rejected = no.rejected,
                                            .believed = no.believed,
                                        });
        return;
    }
    /* Before the first control connection it is final; later the network may come back. */
    if (session->connections == 0) {
        session_end(session, m->error, true, "%s", m->text);
    } else if (requests_awaits_peer(session->requests, PEER_RESUME, m->serial)) {
        session_redial(session);
    } else if (requests_on_peer(session->requests, PEER_CHANNEL, m->serial, &channel)) {
        requests_end_peer(session->requests, m->serial);
        if (!channels_dial_again(session->channels, channel))
            session_interrupt(session, "%s", m->text);
    }
    /* else it was for what is lost already */
}

static void on_qemu_failed(struct session *session, const struct message_qemu_failed *m)
{
    if (m->stream < session->streams.n && channels_on_qemu_failed(session->channels, m->channel, m->stream))
        session_end(session, m->error, true, "%s", m->text);
}

/* The broker ends it. A source that is cut off goes on until it can tell its peer. */
static void on_end(struct session *session, const struct message_end *m)
{
    session_clean_up(session); /* the connection may be lost already, and the loop has yet to act upon it */
    if (session_is_over(session))
        return;
    if (session->role != ROLE_OUTGOING || session->state != STATE_INTERRUPTED ||
        session->connection == CONNECTION_UP) {
        session_end(session, m->error, true, "%s", m->text);
        return;
    }
    session_set_ending(session, ENDING_FAREWELL);
    session->ending.farewell = m->error;
    message_text_set(session->why, sizeof(session->why), m->text);
    session_set_recovery(session, RECOVERY_NONE);
    channels_give_up(session->channels);
    /* What the broker was dialling is closed with the migration, and is asked for again. */
    if (requests_has_peer(session->requests, PEER_RESUME))
        session_redial(session);
}

/* A socket that waited here is what was asked for. */
static void on_use(struct session *session, const struct message_use *m)
{
    struct kept_socket kept;

    if (!kept_take(session->kept, m->number, &kept)) {
        session_end(session, VF_ERROR_HELPER_FAILED, true,
                    "A socket that was supplied is lost: there was no memory to keep it.");
    } else if (kept.is.what == KEPT_FOR_QEMU) {
        const struct message_qemu qemu = {
            .channel = m->request, .stream = kept.is.stream, .shared = kept.is.shared};

        on_qemu(session, &qemu, kept.fd);
    } else {
        const struct message_peer peer = {.serial = m->request, .kind = m->kind, .shared = kept.is.shared};

        on_peer(session, &peer, kept.fd);
    }
}

static void tell_features(struct session *session)
{
    union message m = {.features.features = session->features};

    link_send(session->link, MESSAGE_FEATURES, &m, -1);
}

/*
 * A new broker has taken over. SYNCED goes first: until then that broker ignores requests, since they were
 * made of the broker before it. Then what the record in the store may lack, and last the requests: the broker
 * answers them out of the sockets that KEPT has just named.
 */
static void on_sync(struct session *session, const struct message_sync *m)
{
    union message synced = {.synced.cookie = m->cookie};

    session_forget_broker(session);
    link_send(session->link, MESSAGE_SYNCED, &synced, -1);
    if (m->cookie >> 32 == SYNC_KNOWS_FEATURES) {
        if (session->features != 0)
            tell_features(session);
        kept_tell(session->kept, session->link);
    }
    if (session->state != STATE_WAITING)
        session_tell_state(session);
    requests_repeat(session->requests);
    channels_dial(session->channels);
}

static void on_offer(struct session *session, const struct message_offer *m)
{
    session->features = m->features & OFFERS_KNOWN;
    if (session->role == ROLE_OUTGOING) /* the way back carries requests */
        ring_pool_allow(&session->pool, (size_t)(m->growth < GROWTH_MAX ? m->growth : GROWTH_MAX) << 20);
    tell_features(session);
}

void session_on_message(struct link *link, const union message *m, int fd, void *userdata)
{
    struct session *session = userdata;
    _cleanup_fd_ int owned = fd;

    if (session_is_over(session))
        return;
    switch (m->header.type) {
    case MESSAGE_PEER:
        on_peer(session, &m->peer, fd_steal(&owned));
        break;
    case MESSAGE_PEER_MARKED:
        if (m->peer.kind != PEER_ANY && m->peer.kind <= PEER_RESUME && session->role == ROLE_INCOMING)
            peers_start(session->peers, &m->peer, &m->peer_marked.mark, fd_steal(&owned));
        break;
    case MESSAGE_OFFER:
        on_offer(session, &m->offer);
        break;
    case MESSAGE_PEER_FAILED:
        on_peer_failed(session, &m->peer_failed);
        break;
    case MESSAGE_QEMU:
        on_qemu(session, &m->qemu, fd_steal(&owned));
        break;
    case MESSAGE_KEEP:
        kept_put(session->kept, &m->keep, fd_steal(&owned));
        break;
    case MESSAGE_USE:
        on_use(session, &m->use);
        break;
    case MESSAGE_PIPE:
        channels_on_pipe(session->channels, &m->pipe, fd_steal(&owned));
        break;
    case MESSAGE_QEMU_FAILED:
        on_qemu_failed(session, &m->qemu_failed);
        break;
    case MESSAGE_LIMIT:
        channels_set_limit(session->channels, m->limit.bandwidth_limit);
        break;
    case MESSAGE_END:
        on_end(session, &m->end);
        break;
    case MESSAGE_SYNC:
        on_sync(session, &m->sync);
        break;
    case MESSAGE_HOLD:
        session_meet_broker(session);
        session_hold(session, m->hold.usec);
        break;
    case MESSAGE_OUTCOME:
        session_take_outcome(session, &m->outcome.outcome);
        break;
    default:
        break;
    }
}

/* It takes only what needs it: channels that are open go on to their end. */
void session_on_broker_gone(struct link *link, const char *why, void *userdata)
{
    struct session *session = userdata;

    if (session_is_over(session))
        return;
    if (why)
        session_end(session, VF_ERROR_HELPER_FAILED, true, "%s", why);
    else if (requests_wait(session->requests))
        session_end(session, VF_ERROR_HELPER_FAILED, true,
                    "The broker is gone, so that a connection that is needed cannot be made.");
    else if (!channels_is_any_open(session->channels))
        session_end(session, VF_ERROR_HELPER_FAILED, true, "The broker is gone.");
}
