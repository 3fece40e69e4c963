/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/requests.h"

#include <errno.h>
#include <stdlib.h>

#include "common/error.h"
#include "common/stats.h"

/* One per channel, and one for a control connection. */
enum { REQUESTS_MAX = STATS_CHANNELS_MAX + MESSAGE_STREAMS_MAX + 1 };

/* Endpoints that one request is tried by; a new broker does not know which there have been. */
enum { TRIES_MAX = 32 };

enum request_state {
    REQUEST_NONE,
    REQUEST_ASKED,
    REQUEST_COME,     /* a peer connection, which has yet to prove itself */
    REQUEST_GIVEN_UP, /* QEMU: no channel wants it any more, but the broker will answer */
};

/*
 *     peer:  NONE --ask--> ASKED --connection--> COME --proof, or the last try--> NONE
 *                            ^--------------------'   one try has failed, other endpoints are left
 *     QEMU:  NONE --ask--> ASKED --connection, or failure--> NONE
 *                            '--the channel ends--> GIVEN_UP --the answer that is under way--> NONE
 *
 * ASKED is what a new broker has to be told again. A QEMU that is GIVEN_UP still blocks its stream: the
 * broker dials one per stream at a time, and a second request would be a protocol violation of this helper's.
 */
struct request {
    enum request_state state;
    enum message_type type; /* MESSAGE_NEED_PEER or MESSAGE_NEED_QEMU */
    enum peer_kind kind;    /* peer */
    uint32_t serial;        /* peer */
    uint32_t channel;
    uint32_t stream;                    /* QEMU */
    uint32_t endpoint, others, n_tries; /* peer */
    struct peer_no no;                  /* peer: of the tries before; error 0: there was none */
};

struct requests {
    struct link *link; /* borrowed */
    uint32_t last_serial;
    uint32_t worked; /* the endpoint by which the peer has proved itself; 0: none */
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

/* A peer connection has its serial, a connection to QEMU its stream, which has one at a time. */
static struct request *find(struct requests *requests, enum message_type type, uint32_t key)
{
    for (size_t i = 0; i < REQUESTS_MAX; i++) {
        struct request *request = &requests->all[i];

        if (request->state != REQUEST_NONE && request->type == type &&
            (type == MESSAGE_NEED_PEER ? request->serial : request->stream) == key)
            return request;
    }
    return NULL;
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

bool requests_awaits_peer(struct requests *requests, uint32_t kind, uint32_t serial)
{
    const struct request *request = find(requests, MESSAGE_NEED_PEER, serial);

    return request && request->state == REQUEST_ASKED && request->kind == kind;
}

bool requests_on_peer(struct requests *requests, uint32_t kind, uint32_t serial, uint32_t *ret_channel)
{
    struct request *request = find(requests, MESSAGE_NEED_PEER, serial);

    if (!request || request->state != REQUEST_ASKED || request->kind != kind)
        return false;
    request->state = REQUEST_COME;
    *ret_channel = request->channel;
    return true;
}

void requests_end_peer(struct requests *requests, uint32_t serial)
{
    struct request *request = find(requests, MESSAGE_NEED_PEER, serial);

    if (request && request->state == REQUEST_COME)
        request->state = REQUEST_NONE;
}

/* ---- One endpoint after the other ---- */

void requests_peer_endpoint(struct requests *requests, uint32_t serial, uint32_t endpoint, uint32_t others)
{
    struct request *request = find(requests, MESSAGE_NEED_PEER, serial);

    if (!request)
        return;
    request->endpoint = endpoint;
    request->others = others;
}

/* How much it says of the peer. */
static int weight(const struct peer_no *no)
{
    bool definite = no->error == -ECONNREFUSED &&
                    (no->rejected == VF_ERROR_TICKET_USED || no->rejected == VF_ERROR_TICKET_EXPIRED ||
                     no->rejected == VF_ERROR_PROTOCOL_MISMATCH);

    return no->error == 0 ? 0 : 1 + definite + 2 * no->believed;
}

bool requests_try_next(struct requests *requests, uint32_t serial, struct peer_no *no)
{
    struct request *request = find(requests, MESSAGE_NEED_PEER, serial);

    no->believed = !request || request->endpoint == 0 || request->endpoint == requests->worked ||
                   (requests->worked == 0 && request->others == 0 && request->n_tries == 0);
    if (!request || request->state != REQUEST_COME)
        return false;
    if (weight(no) >= weight(&request->no))
        request->no = *no;
    *no = request->no;
    if (request->others == 0 || ++request->n_tries >= TRIES_MAX)
        return false;
    request->state = REQUEST_ASKED;
    if (ask(requests, request))
        return true;
    request->state = REQUEST_COME;
    return false;
}

bool requests_last_no(struct requests *requests, uint32_t serial, struct peer_no *ret)
{
    const struct request *request = find(requests, MESSAGE_NEED_PEER, serial);

    /* One that is just closed is dialled again by the session, or is a loss. */
    if (!request || request->no.error == 0 ||
        (weight(&request->no) < 2 && (request->no.error == -ECONNREFUSED ||
                                      request->no.error == -EKEYREJECTED || request->no.error == -ETIMEDOUT)))
        return false;
    *ret = request->no;
    return true;
}

void requests_peer_proved(struct requests *requests, uint32_t serial)
{
    const struct request *request = find(requests, MESSAGE_NEED_PEER, serial);

    if (request && request->endpoint > 0)
        requests->worked = request->endpoint;
}

/* ---- All of a kind ---- */

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

bool requests_has_qemu(struct requests *requests, uint32_t stream)
{
    return find(requests, MESSAGE_NEED_QEMU, stream) != NULL;
}

bool requests_on_qemu(struct requests *requests, uint32_t channel, uint32_t stream)
{
    struct request *request = find(requests, MESSAGE_NEED_QEMU, stream);
    bool wanted = request && request->state == REQUEST_ASKED && request->channel == channel;

    if (request)
        request->state = REQUEST_NONE;
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
            request->state = REQUEST_NONE; /* a new broker does not know of it, and will not answer */
    }
}
