/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/peer-dial.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/migration/log.h"
#include "broker/net/dial.h"
#include "broker/net/endpoint.h"
#include "broker/net/ticket.h"
#include "common/cleanup.h"
#include "common/timer.h"

enum { DIAL_TIMEOUT = 10000000 /* µs */ };

/* One that was asked for. */
struct peer_dial {
    TAILQ_ENTRY(peer_dial) next;
    struct peer_dials *all;
    uint32_t serial;
    enum peer_kind kind;
    uint32_t avoided;                    /* endpoints that have been tried, bits */
    uint8_t order[TICKET_ENDPOINTS_MAX]; /* in which the others are dialled */
    size_t n_order;
    struct dial *dial;      /* owned; NULL: waits for AddPeerConnection */
    sd_event_source *timer; /* bounds that wait */
};

void peer_dials_init(struct peer_dials *dials, const struct migration_services *services, struct entry *entry,
                     const struct options *options, struct helper_side *helper)
{
    *dials = (struct peer_dials){.services = services, .entry = entry, .options = options, .helper = helper};
    TAILQ_INIT(&dials->dials);
    queue_init(&dials->brought, entry, helper, KEPT_FOR_PEER, 0);
}

static void dial_forget(struct peer_dial *dial)
{
    TAILQ_REMOVE(&dial->all->dials, dial, next);
    dial->all->n_dials--;
    dial_free(dial->dial);
    sd_event_source_disable_unref(dial->timer);
    free(dial);
}

static void peer_failed(struct peer_dials *dials, uint32_t serial, enum vf_error error, const char *why)
{
    union message m = {.peer_failed = {.serial = serial, .error = error}};

    message_text_set(m.peer_failed.text, sizeof(m.peer_failed.text), why);
    helper_side_answer(dials->helper, MESSAGE_PEER_FAILED, &m, -1);
}

static struct peer_tried *tried_of(struct peer_dials *dials, uint32_t serial)
{
    for (size_t i = 0; i < PEER_TRIED_MAX; i++)
        if (serial > 0 && dials->tried[i].serial == serial)
            return &dials->tried[i];
    return NULL;
}

static void note_tried(struct peer_dial *dial, size_t endpoint)
{
    struct peer_dials *all = dial->all;
    struct peer_tried *tried = tried_of(all, dial->serial);

    if (!tried)
        tried = &all->tried[all->n_tried++ % PEER_TRIED_MAX];
    *tried = (struct peer_tried){.serial = dial->serial, .endpoints = dial->avoided | 1U << endpoint};
    if (dial->kind != PEER_CHANNEL)
        all->answered = endpoint + 1;
}

void peer_dials_proved(struct peer_dials *dials)
{
    dials->worked = dials->answered;
}

/* Takes fd; shared: a caller holds the socket too. endpoint: from 1 on; 0: it was not dialled. */
static void peer_had(struct peer_dial *dial, int fd, bool shared, size_t endpoint)
{
    union message m = {.peer = {.serial = dial->serial,
                                .kind = dial->kind,
                                .shared = shared,
                                .endpoint = (uint16_t)endpoint,
                                .others = endpoint > 0 ? (uint16_t)(dial->n_order - 1) : 0}};

    if (endpoint > 0)
        note_tried(dial, endpoint - 1);
    else if (dial->kind != PEER_CHANNEL)
        dial->all->answered = 0;

    if (dial->kind != PEER_CHANNEL && !shared)
        endpoint_tune_control(fd);
    helper_side_answer(dial->all->helper, MESSAGE_PEER, &m, fd);
    fd_closep(&fd);
}

/* By a caller, who holds it too. */
static void peer_brought(struct peer_dial *dial, const struct waiting *waiting)
{
    union message m = {
        .use = {.number = waiting->kept, .request = dial->serial, .kind = (uint32_t)dial->kind}};

    if (waiting->kept == 0) {
        peer_had(dial, waiting->fd, true, 0);
        return;
    }
    if (dial->kind != PEER_CHANNEL)
        dial->all->answered = 0;
    helper_side_answer(dial->all->helper, MESSAGE_USE, &m, -1);
}

static void on_dialled(struct dial *unused, int fd, size_t which, const char *why, void *userdata)
{
    struct peer_dial *dial = userdata;
    char text[MESSAGE_TEXT_MAX];

    if (fd >= 0) {
        peer_had(dial, fd, false, (size_t)dial->order[which] + 1);
    } else {
        snprintf(text, sizeof(text), "Cannot reach the peer (%s%s). %s", why,
                 dial->avoided ? "; what answered is not the peer" : "",
                 "Is its port open, and has its ticket not expired?");
        peer_failed(dial->all, dial->serial, VF_ERROR_PEER_UNREACHABLE, text);
    }
    dial_forget(dial);
}

static int on_wait_end(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct peer_dial *dial = userdata;
    char text[MESSAGE_TEXT_MAX];

    snprintf(text, sizeof(text),
             "Nobody brought a connection to the peer by AddPeerConnection in time (expire-usec).%s",
             dial->all->entry->restored ? " " SUPPLY_AGAIN : "");
    peer_failed(dial->all, dial->serial, VF_ERROR_PEER_UNREACHABLE, text);
    dial_forget(dial);
    return 0;
}

static void wait_for_manager(struct peer_dial *dial)
{
    struct peer_dials *all = dial->all;

    if (timer_arm_once(all->services->event, &dial->timer, all->options->expire, on_wait_end, dial) >= 0)
        return;
    peer_failed(all, dial->serial, VF_ERROR_PEER_UNREACHABLE, "There is no memory to wait for it.");
    dial_forget(dial); /* it is answered, once */
}

/* The one that has worked goes first. */
static void put_in_order(struct peer_dial *dial)
{
    size_t worked = dial->all->worked;

    if (worked > 0 && !(dial->avoided & 1U << (worked - 1)))
        dial->order[dial->n_order++] = (uint8_t)(worked - 1);
    for (size_t i = 0; i < dial->all->options->n_endpoints; i++)
        if (i + 1 != worked && !(dial->avoided & 1U << i))
            dial->order[dial->n_order++] = (uint8_t)i;
}

static void dial_endpoints(struct peer_dial *dial)
{
    struct peer_dials *all = dial->all;
    const struct options *options = all->options;
    char endpoints[TICKET_ENDPOINTS_MAX][ADDRESS_TEXT_MAX];
    int r;

    if (options->n_endpoints == 0) {
        wait_for_manager(dial);
        return;
    }
    put_in_order(dial);
    for (size_t i = 0; i < dial->n_order; i++)
        memcpy(endpoints[i], options->endpoints[dial->order[i]], ADDRESS_TEXT_MAX);
    r = dial_new(all->services->event, (const char(*)[ADDRESS_TEXT_MAX])endpoints, dial->n_order,
                 DIAL_TIMEOUT, all->services->config, all->entry->identity.uid, on_dialled, dial,
                 &dial->dial);
    if (r < 0) {
        peer_failed(all, dial->serial, VF_ERROR_PEER_UNREACHABLE, strerror(-r));
        dial_forget(dial);
    }
}

/* Supplied connections first, in the order in which the helper asked; what is left dials, or waits for a
 * caller. */
static void supply(struct peer_dials *dials)
{
    struct peer_dial *dial, *next;

    for (dial = TAILQ_FIRST(&dials->dials); dial; dial = next) {
        struct waiting waiting;

        next = TAILQ_NEXT(dial, next);
        if (!dial->dial && queue_take(&dials->brought, &waiting)) {
            peer_brought(dial, &waiting);
            dial_forget(dial);
        } else if (!dial->dial) {
            dial_endpoints(dial);
        }
    }
}

void peer_dials_ask(struct peer_dials *dials, const struct message_need_peer *m)
{
    const struct peer_tried *tried = tried_of(dials, m->serial);
    struct peer_dial *dial;

    /* It asks for one per channel, some of which may have ended meanwhile, and one for control. (MaxChannels=
     * may be another one than that which it was started with.) */
    if (dials->entry->identity.role != ROLE_OUTGOING || m->kind == PEER_ANY || m->kind > PEER_RESUME ||
        dials->n_dials > 2 * DEFAULT_MAX_CHANNELS + 2) {
        helper_side_kill(dials->helper, "asked for connections that it cannot need");
        return;
    }
    dial = calloc(1, sizeof(*dial));
    if (!dial) {
        peer_failed(dials, m->serial, VF_ERROR_HELPER_FAILED, "There is no memory for another connection.");
        return;
    }
    if (tried)
        migration_log(
            &dials->entry->identity, LOG_INFO, NULL,
            "What answers at one of the peer's endpoints is not the peer, or does not let this migration "
            "in: the others are tried.");
    *dial = (struct peer_dial){
        .all = dials, .serial = m->serial, .kind = m->kind, .avoided = tried ? tried->endpoints : 0};
    TAILQ_INSERT_TAIL(&dials->dials, dial, next);
    dials->n_dials++;
    supply(dials);
}

int peer_dials_bring(struct peer_dials *dials, int fd)
{
    int r = queue_put(&dials->brought, fd, false);

    if (r >= 0)
        supply(dials);
    return r;
}

void peer_dials_clear(struct peer_dials *dials)
{
    queue_clear(&dials->brought);
    while (!TAILQ_EMPTY(&dials->dials))
        dial_forget(TAILQ_FIRST(&dials->dials));
}
