/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/migration.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/net/endpoint.h"
#include "common/cleanup.h"

enum { DIAL_TIMEOUT = 10000000 /* µs */ };

void peer_dial_free(struct peer_dial *dial)
{
    TAILQ_REMOVE(&dial->migration->dials, dial, entry);
    dial->migration->n_dials--;
    dial_free(dial->dial);
    sd_event_source_disable_unref(dial->timer);
    free(dial);
}

static void peer_failed(struct migration *migration, uint32_t serial, enum vf_error error, const char *why)
{
    union message m = {.peer_failed = {.serial = serial, .error = error}};

    message_text_set(m.peer_failed.text, sizeof(m.peer_failed.text), why);
    migration_answer(migration, MESSAGE_PEER_FAILED, &m, -1);
}

static void on_dialled(struct dial *unused, int fd, const char *why, void *userdata)
{
    struct peer_dial *dial = userdata;
    struct migration *migration = dial->migration;
    union message m = {.peer = {.serial = dial->serial, .kind = dial->kind}};
    char text[MESSAGE_TEXT_MAX];

    (void)unused;
    if (fd >= 0) {
        if (dial->kind != PEER_CHANNEL)
            endpoint_tune_control(fd);
        migration_answer(migration, MESSAGE_PEER, &m, fd);
        fd_closep(&fd);
    } else {
        snprintf(text, sizeof(text),
                 "Cannot reach the peer (%s). Is its port open, and has its ticket not expired?", why);
        peer_failed(migration, dial->serial, VF_ERROR_PEER_UNREACHABLE, text);
    }
    peer_dial_free(dial);
}

void peer_dial_start(struct migration *migration, const struct message_need_peer *m)
{
    struct peer_dial *dial;

    /* It asks for one a channel, some of which may have ended meanwhile, and one for control. */
    if (migration->role != ROLE_OUTGOING || m->kind == PEER_ANY || m->kind > PEER_RESUME ||
        migration->n_dials > 2 * migration->manager->config->max_channels + 2) {
        helper_link_kill(migration->helper, "asked for connections that it cannot need");
        return;
    }
    dial = calloc(1, sizeof(*dial));
    if (!dial) {
        peer_failed(migration, m->serial, VF_ERROR_HELPER_FAILED,
                    "There is no memory for another connection.");
        return;
    }
    dial->migration = migration;
    dial->serial = m->serial;
    dial->kind = m->kind;
    TAILQ_INSERT_TAIL(&migration->dials, dial, entry);
    migration->n_dials++;
    peer_dial_supply(migration);
}

static int on_wait_end(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct peer_dial *dial = userdata;

    (void)source;
    (void)usec;
    peer_failed(dial->migration, dial->serial, VF_ERROR_PEER_UNREACHABLE,
                "Nobody brought a connection to the peer by AddPeerConnection in time (expire-usec).");
    peer_dial_free(dial);
    return 0;
}

static void wait_for_manager(struct peer_dial *dial)
{
    struct migration *migration = dial->migration;

    if (dial->timer)
        return;
    if (sd_event_add_time_relative(migration->manager->event, &dial->timer, CLOCK_MONOTONIC,
                                   migration->options.expire, 0, on_wait_end, dial) < 0)
        peer_failed(migration, dial->serial, VF_ERROR_PEER_UNREACHABLE, "There is no memory to wait for it.");
}

/* Connections that managers brought go first; then, where there is an endpoint, it is dialled. */
static void dial_endpoints(struct peer_dial *dial)
{
    struct migration *migration = dial->migration;
    struct options *options = &migration->options;
    int r;

    if (options->n_endpoints == 0) {
        wait_for_manager(dial);
        return;
    }
    r = dial_new(migration->manager->event, (const char(*)[ADDRESS_TEXT_MAX])options->endpoints,
                 options->n_endpoints, DIAL_TIMEOUT, migration->manager->config, migration->uid, on_dialled,
                 dial, &dial->dial);
    if (r < 0) {
        peer_failed(migration, dial->serial, VF_ERROR_PEER_UNREACHABLE, strerror(-r));
        peer_dial_free(dial);
    }
}

void peer_dial_supply(struct migration *migration)
{
    struct peer_dial *dial, *next;

    for (dial = TAILQ_FIRST(&migration->dials); dial; dial = next) {
        union message m = {.peer = {.serial = dial->serial, .kind = dial->kind, .shared = true}};
        int fd = dial->dial ? -1 : migration_take_peer(migration);

        next = TAILQ_NEXT(dial, entry);
        if (fd >= 0) {
            if (dial->kind != PEER_CHANNEL)
                endpoint_tune_control(fd);
            migration_answer(migration, MESSAGE_PEER, &m, fd);
            fd_closep(&fd);
            peer_dial_free(dial);
        } else if (!dial->dial) {
            dial_endpoints(dial);
        }
    }
}
