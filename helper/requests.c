/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/session/session.h"

#include "common/address.h"

/*
 * A broker that was restarted knows of no request that the one before it had taken: so all that nobody has
 * answered is asked for again. What the old one had answered lies before SYNC in the socket.
 */

/* A peer connection of this serial has come, and has yet to prove itself. */
static bool has_come(const struct session *session, uint32_t serial)
{
    for (size_t i = 0; i < PEERS_MAX; i++)
        if (session->peers[i].stage != PEER_UNUSED && session->peers[i].connecting &&
            session->peers[i].serial == serial)
            return true;
    return false;
}

static bool channel_awaits_peer(const struct channel *channel)
{
    return channel_lives(channel) && channel->announced && !channel->carrier &&
           !has_come(channel->session, channel->serial);
}

static bool channel_awaits_qemu(const struct channel *channel)
{
    return channel_lives(channel) && channel->dial == DIAL_ASKED;
}

bool sync_awaits_peer(const struct session *session, uint32_t kind, uint32_t serial)
{
    if (serial == 0 || session->role != ROLE_OUTGOING || has_come(session, serial))
        return false;
    if (kind == PEER_CONTROL)
        return !session->adopted && serial == session->control_serial;
    if (kind == PEER_RESUME)
        return !session->control.carrier && serial == session->resume_serial;
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++)
        if (session->channels[i].serial == serial && channel_awaits_peer(&session->channels[i]))
            return true;
    return false;
}

bool sync_waits(const struct session *session)
{
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++)
        if (channel_awaits_qemu(&session->channels[i]) ||
            (session->role == ROLE_OUTGOING && channel_awaits_peer(&session->channels[i])))
            return true;
    return sync_awaits_peer(session, PEER_CONTROL, session->control_serial) ||
           sync_awaits_peer(session, PEER_RESUME, session->resume_serial);
}

bool sync_need_peer(struct session *session, enum peer_kind kind, uint32_t serial)
{
    union message m = {.need_peer = {.serial = serial, .kind = kind}};

    return link_send(session->link, MESSAGE_NEED_PEER, &m, -1);
}

bool sync_need_qemu(const struct channel *channel)
{
    union message m = {.need_qemu = {.channel = channel->number, .stream = channel->stream}};

    channel->session->dialling |= 1U << channel->stream;
    return link_send(channel->session->link, MESSAGE_NEED_QEMU, &m, -1);
}

static void ask_for_peer(struct session *session, enum peer_kind kind, uint32_t serial)
{
    if (sync_awaits_peer(session, kind, serial))
        sync_need_peer(session, kind, serial);
}

void sync_tell_state(struct session *session)
{
    union message m = {.state_changed.state = session->state};

    if (session->control.carrier)
        address_of_peer(session->control.carrier->fd, m.state_changed.peer);
    if (session->state == STATE_INTERRUPTED)
        message_text_set(m.state_changed.text, sizeof(m.state_changed.text), session->why);
    link_send(session->link, MESSAGE_STATE, &m, -1);
}

void sync_answer(struct session *session, uint64_t cookie)
{
    union message synced = {.synced.cookie = cookie};

    link_send(session->link, MESSAGE_SYNCED, &synced, -1);
    if (session->state != STATE_WAITING)
        sync_tell_state(session);
    ask_for_peer(session, PEER_CONTROL, session->control_serial);
    ask_for_peer(session, PEER_RESUME, session->resume_serial);
    session->dialling = 0;
    for (size_t i = 0; i < STATS_CHANNELS_MAX; i++) {
        const struct channel *channel = &session->channels[i];

        if (session->role == ROLE_OUTGOING && channel_lives(channel))
            ask_for_peer(session, PEER_CHANNEL, channel->serial);
        if (channel_awaits_qemu(channel))
            sync_need_qemu(channel);
    }
}
