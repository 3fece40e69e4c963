/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/requests.h"

#include <stdlib.h>

#include "common/stats.h"

/* One per channel, and one for a control connection. */
enum { REQUESTS_MAX = STATS_CHANNELS_MAX + MESSAGE_STREAMS_MAX + 1 };

enum request_state {
    REQUEST_NONE,
    REQUEST_ASKED,
    REQUEST_COME,     /* a peer connection, which has yet to prove itself */
    REQUEST_GIVEN_UP, /* QEMU: no channel wants it any more, but the broker will answer */
};

struct request {
    enum request_state state;
    enum message_type type; /* MESSAGE_NEED_PEER or MESSAGE_NEED_QEMU */
    enum peer_kind kind;    /* peer */
    uint32_t serial;        /* peer */
    uint32_t channel;
    uint32_t stream; /* QEMU */
};

struct requests {
    struct link *link; /* borrowed */
    uint32_t last_serial;
    struct request all[REQUESTS_MAX];
};

struct requests *requests_new(struct link *link)
{
    struct requests *requests = calloc(1, sizeof(*requests));

    if (requests)
        requests->link = link;
    return requests;
}

struct requests *requests_free(struct requests *requests)
{
    free(requests);
    return NULL;
}

static bool ask(const struct requests *requests, const struct request *request)
{
    union message m = {0};

    if (request->type == MESSAGE_NEED_PEER) {
        m.need_peer.serial = request->serial;
        m.need_peer.kind = request->kind;
    } else {
        m.need_qemu.channel = request->channel;
        m.need_qemu.stream = request->stream;
    }
    return link_send(requests->link, request->type, &m, -1);
}

static bool add(struct requests *requests, const struct request *request)
{
    for (size_t i = 0; i < REQUESTS_MAX; i++)
        if (requests->all[i].state == REQUEST_NONE) {
            requests->all[i] = *request;
            break;
        }
    return ask(requests, request);
}

static const struct request *find_peer(const struct requests *requests, uint32_t serial)
{
    for (size_t i = 0; i < REQUESTS_MAX; i++) {
        const struct request *request = &requests->all[i];

        if (request->state != REQUEST_NONE && request->type == MESSAGE_NEED_PEER && request->serial == serial)
            return request;
    }
    return NULL;
}

static const struct request *find_qemu(const struct requests *requests, uint32_t stream)
{
    for (size_t i = 0; i < REQUESTS_MAX; i++) {
        const struct request *request = &requests->all[i];

        if (request->state != REQUEST_NONE && request->type == MESSAGE_NEED_QEMU && request->stream == stream)
            return request;
    }
    return NULL;
}

static void set_state(struct requests *requests, const struct request *request, enum request_state state)
{
    requests->all[request - requests->all].state = state;
}

uint32_t requests_ask_peer(struct requests *requests, enum peer_kind kind, uint32_t channel, bool *ret_asked)
{
    struct request request = {
        .state = REQUEST_ASKED,
        .type = MESSAGE_NEED_PEER,
        .kind = kind,
        .serial = ++requests->last_serial,
        .channel = channel,
    };

    *ret_asked = add(requests, &request);
    return request.serial;
}

bool requests_awaits_peer(const struct requests *requests, uint32_t kind, uint32_t serial)
{
    const struct request *request = find_peer(requests, serial);

    return request && request->state == REQUEST_ASKED && request->kind == kind;
}

bool requests_on_peer(struct requests *requests, uint32_t kind, uint32_t serial, uint32_t *ret_channel)
{
    const struct request *request = find_peer(requests, serial);

    if (!requests_awaits_peer(requests, kind, serial))
        return false;
    set_state(requests, request, REQUEST_COME);
    *ret_channel = request->channel;
    return true;
}

void requests_end_peer(struct requests *requests, uint32_t serial)
{
    const struct request *request = find_peer(requests, serial);

    if (request)
        set_state(requests, request, REQUEST_NONE);
}

bool requests_has_peer(const struct requests *requests, enum peer_kind kind)
{
    for (size_t i = 0; i < REQUESTS_MAX; i++)
        if (requests->all[i].type == MESSAGE_NEED_PEER && requests->all[i].state == REQUEST_ASKED &&
            requests->all[i].kind == kind)
            return true;
    return false;
}

void requests_drop_peers(struct requests *requests)
{
    for (size_t i = 0; i < REQUESTS_MAX; i++)
        if (requests->all[i].type == MESSAGE_NEED_PEER)
            requests->all[i].state = REQUEST_NONE;
}

bool requests_ask_qemu(struct requests *requests, uint32_t channel, uint32_t stream)
{
    struct request request = {
        .state = REQUEST_ASKED,
        .type = MESSAGE_NEED_QEMU,
        .channel = channel,
        .stream = stream,
    };

    return add(requests, &request);
}

bool requests_has_qemu(const struct requests *requests, uint32_t stream)
{
    return find_qemu(requests, stream) != NULL;
}

bool requests_on_qemu(struct requests *requests, uint32_t channel, uint32_t stream)
{
    const struct request *request = find_qemu(requests, stream);
    bool wanted = request && request->state == REQUEST_ASKED && request->channel == channel;

    if (request)
        set_state(requests, request, REQUEST_NONE);
    return wanted;
}

void requests_give_up(struct requests *requests, uint32_t channel)
{
    for (size_t i = 0; i < REQUESTS_MAX; i++) {
        struct request *request = &requests->all[i];

        if (request->state == REQUEST_NONE || request->channel != channel)
            continue;
        if (request->type == MESSAGE_NEED_QEMU)
            request->state = REQUEST_GIVEN_UP;
        else if (request->kind == PEER_CHANNEL)
            request->state = REQUEST_NONE;
    }
}

bool requests_wait(const struct requests *requests)
{
    for (size_t i = 0; i < REQUESTS_MAX; i++)
        if (requests->all[i].state == REQUEST_ASKED)
            return true;
    return false;
}

void requests_repeat(struct requests *requests)
{
    for (size_t i = 0; i < REQUESTS_MAX; i++) {
        struct request *request = &requests->all[i];

        if (request->state == REQUEST_ASKED)
            ask(requests, request);
        else if (request->state == REQUEST_GIVEN_UP)
            request->state = REQUEST_NONE;
    }
}
