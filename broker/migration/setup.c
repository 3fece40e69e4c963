/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/migration.h"

/* How a migration comes to be: PrepareIncoming and StartOutgoing, up to where it waits for its peer. */

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/log.h"
#include "broker/migration/permitted.h"
#include "broker/net/port.h"
#include "broker/sockets/deputy.h"
#include "common/clock.h"

static int start_helper(struct migration *migration, const uint8_t secret[static MESSAGE_SECRET_SIZE],
                        sd_bus_error *error)
{
    const struct config *config = migration->manager->config;
    union message m = {.start_relay = {
                           .id = migration->id,
                           .bandwidth_limit = migration->options.bandwidth_limit,
                           .resume_timeout = migration->options.resume_timeout,
                           .window = config->window,
                           .role = migration->role,
                           .security = migration->security,
                           .max_channels = config->max_channels,
                           .n_streams = migration->options.n_streams,
                       }};
    int r;

    memcpy(m.start_relay.secret, secret, MESSAGE_SECRET_SIZE);
    memcpy(m.start_relay.streams, migration->options.streams, sizeof(m.start_relay.streams));
    r = stats_page_make(&migration->page);
    if (r >= 0)
        r = helper_link_new(&migration->manager->helpers, &migration_helper_handlers, migration,
                            &migration->helper);
    if (r >= 0)
        r = helper_link_send(migration->helper, MESSAGE_START_RELAY, &m, migration->page.fd);
    explicit_bzero(&m, sizeof(m));
    if (r < 0)
        return error_set(error, VF_ERROR_HELPER_FAILED, "Cannot start %s: %s. %s",
                         helper_links_source(&migration->manager->helpers), strerror(-r),
                         helper_links_option(&migration->manager->helpers));
    migration_on_helper_unit(migration->helper, migration);
    return 0;
}

int migration_new(struct manager *manager, enum message_role role, uint64_t id, const char *vm,
                  struct options *options, uid_t uid, struct migration **ret)
{
    struct migration *migration = calloc(1, sizeof(*migration));

    if (!migration)
        return -ENOMEM;
    migration->manager = manager;
    migration->role = role;
    migration->id = id;
    snprintf(migration->id_text, sizeof(migration->id_text), "%016" PRIx64, id);
    snprintf(migration->path, sizeof(migration->path), BROKER_PATH "/%s/%s", migration_role_text(migration),
             migration->id_text);
    migration->uid = uid;
    migration->owner = (struct socket_owner){.uid = uid, .gid = (gid_t)-1};
    if (options->has_owner)
        migration->owner = (struct socket_owner){
            .uid = options->owner_uid, .gid = options->owner_gid, .group = options->has_group};
    migration->owner.only = deputy_is_restricted(uid);
    migration->started = wall_now();
    migration->page.fd = -1;
    migration->options = *options;
    *options = (struct options){0};
    TAILQ_INIT(&migration->dials);
    for (uint32_t i = 0; i < MESSAGE_STREAMS_MAX; i++) {
        migration->streams[i].migration = migration;
        migration->streams[i].index = i;
        migration->streams[i].listener = -1;
        migration->streams[i].dial = -1;
    }
    manager_add(manager, migration);
    migration->vm = strdup(vm);
    if (!migration->vm) {
        migration_free(migration);
        return -ENOMEM;
    }
    *ret = migration;
    return 0;
}

/* Random and not in use. */
static int new_id(struct manager *manager, uint64_t *ret)
{
    do {
        if (gnutls_rnd(GNUTLS_RND_RANDOM, ret, sizeof(*ret)) < 0)
            return -EIO;
    } while (*ret == 0 || manager_find(manager, ROLE_INCOMING, *ret));
    return 0;
}

int migration_prepare(struct manager *manager, const char *vm, struct options *options, uid_t uid,
                      struct migration **ret, sd_bus_error *error)
{
    uint8_t secret[MESSAGE_SECRET_SIZE];
    struct migration *migration;
    uint64_t id;
    int r = migration_make_room(manager, options->n_streams, error);

    if (r >= 0)
        r = new_id(manager, &id);
    if (r >= 0)
        r = migration_new(manager, ROLE_INCOMING, id, vm, options, uid, &migration);
    if (r < 0)
        return r;
    migration->security = migration->options.security;
    r = streams_make_paths(migration, error);
    if (r >= 0 && !migration->options.no_endpoints) {
        r = port_acquire(manager->port, error);
        migration->expects_peers = r >= 0;
    }
    if (r >= 0)
        r = ticket_issue(migration, secret, error);
    if (r >= 0)
        r = start_helper(migration, secret, error);
    explicit_bzero(secret, sizeof(secret));
    if (r < 0) {
        migration_free(migration);
        return r;
    }
    migration_await_peer(migration);
    migration_store(migration);
    migration_log(migration, LOG_INFO, LOG_PREPARED, "Prepared: waits for its source for %" PRIu64 " s.",
                  migration->options.expire / 1000000);
    migration_emit_new(migration);
    *ret = migration;
    return 0;
}

int migration_start(struct manager *manager, const char *vm, const char *text, struct options *options,
                    uid_t uid, struct migration **ret, sd_bus_error *error)
{
    struct ticket ticket;
    struct migration *migration = NULL;
    int r = ticket_accept(manager, text, options, &ticket, error);

    if (r < 0)
        return r;
    r = migration_make_room(manager, options->n_streams, error);
    if (r >= 0)
        r = migration_new(manager, ROLE_OUTGOING, ticket.id, vm, options, uid, &migration);
    if (r >= 0) {
        migration->security = ticket.security;
        if (migration->options.n_endpoints == 0) {
            migration->options.n_endpoints = ticket.n_endpoints;
            memcpy(migration->options.endpoints, ticket.endpoints, sizeof(ticket.endpoints));
        }
        r = permitted_endpoints(manager->config, uid, &migration->options, error);
    }
    if (r >= 0)
        r = streams_make_paths(migration, error);
    for (uint32_t i = 0; r >= 0 && i < migration->options.n_streams; i++)
        r = stream_listen(&migration->streams[i], error);
    if (r >= 0)
        r = start_helper(migration, ticket.secret, error);
    ticket_clear(&ticket);
    if (r < 0) {
        if (migration)
            migration_free(migration);
        return r;
    }
    migration_await_peer(migration);
    migration_store(migration);
    migration_log(migration, LOG_INFO, LOG_PREPARED, "Started: %s%s.",
                  migration->options.n_endpoints > 0 ? "dials " : "waits for AddPeerConnection",
                  migration->options.n_endpoints > 0 ? migration->options.endpoints[0] : "");
    migration_emit_new(migration);
    *ret = migration;
    return 0;
}
