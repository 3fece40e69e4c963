/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/setup.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "broker/errors.h"
#include "broker/helpers/ready.h"
#include "broker/migration/admit.h"
#include "broker/migration/internal.h"
#include "broker/migration/log.h"
#include "broker/migration/migration.h"
#include "broker/migration/news.h"
#include "broker/migration/permitted.h"
#include "broker/migration/persist.h"
#include "broker/migration/streams.h"
#include "broker/migration/ticketing.h"
#include "broker/net/endpoint.h"
#include "broker/net/port.h"
#include "broker/sockets/deputy.h"

static int start_helper(struct migration *migration, const uint8_t secret[static MESSAGE_SECRET_SIZE],
                        sd_bus_error *error)
{
    const struct config *config = migration->services->config;
    const struct options *options = &migration->options;
    struct helper_links *helpers = migration->services->helpers;
    struct helper_side *side = &migration->helper;
    union message m = {.start_relay = {
                           .id = migration->entry.identity.id,
                           .bandwidth_limit = options->bandwidth_limit,
                           .resume_timeout = options->resume_timeout,
                           .window = config->window,
                           .role = migration->entry.identity.role,
                           .security = options->security,
                           .max_channels = config->max_channels,
                           .n_streams = options->n_streams,
                       }};
    int r;

    memcpy(m.start_relay.secret, secret, MESSAGE_SECRET_SIZE);
    memcpy(m.start_relay.streams, options->streams, sizeof(m.start_relay.streams));
    r = stats_page_make(&side->page);
    if (r >= 0)
        r = helper_link_new(helpers, &migration_helper_handlers, migration, &side->link);
    if (r >= 0)
        r = helper_side_send(side, MESSAGE_START_RELAY, &m, side->page.fd);
    if (r >= 0)
        r = helper_side_offer(side, config->growth);
    explicit_bzero(&m, sizeof(m));
    if (r < 0)
        return error_set(error, VF_ERROR_HELPER_FAILED, "Cannot start %s: %s. %s",
                         helper_links_source(helpers), strerror(-r), helper_links_option(helpers));
    migration_helper_handlers.unit(side->link, migration); /* a spare's is known already */
    return 0;
}

static struct socket_owner owner_of(const struct options *options, uid_t uid)
{
    struct socket_owner owner = {.uid = uid, .gid = (gid_t)-1};

    if (options->has_owner)
        owner = (struct socket_owner){
            .uid = options->owner_uid, .gid = options->owner_gid, .group = options->has_group};
    owner.only = deputy_is_restricted(uid) && options->layout[0] == '\0'; /* libvirtd is root */
    return owner;
}

int migration_new(const struct migration_services *services, enum message_role role, uint64_t id,
                  uint32_t number, const char *vm, struct options *options, uid_t uid, struct migration **ret)
{
    struct migration *migration = calloc(1, sizeof(*migration));
    struct entry *entry;
    struct socket_owner owner;

    if (!migration)
        return -ENOMEM;
    entry = &migration->entry;
    if (identity_init(&entry->identity, role, id, number, vm, uid) < 0) {
        free(migration);
        return -ENOMEM;
    }
    migration->services = services;
    news_init(&migration->news, &news_of_states, services->event, migration_tell, migration);
    news_init(&migration->progress_news, &news_of_progress, services->event, migration_tell, migration);
    telling_init(&migration->telling, services, entry, &migration->status, &migration->helper,
                 &migration->progress_news);
    migration->bound = (struct bound){.event = services->event,
                                      .identity = &entry->identity,
                                      .reached = migration_on_deadline,
                                      .migration = migration};
    migration->options = *options;
    *options = (struct options){0};
    /* From here on migration_free() undoes all of it; the options are its own now. The parts borrow one
     * another's addresses, which stay, since a migration is never moved. */
    owner = owner_of(&migration->options, uid);
    helper_side_init(&migration->helper, &entry->identity);
    streams_init(&migration->streams, services, entry, &migration->options, &migration->helper, &owner);
    peer_dials_init(&migration->dials, services, entry, &migration->options, &migration->helper);
    entry->migration = migration;
    entry->client_id = migration->options.client_id;
    entry->ticket_digest = migration->ticket_digest;
    entry->page = &migration->helper.page;
    entry->supplied = &migration->supplied;
    registry_add(services->registry, entry);
    *ret = migration;
    return 0;
}

/* Random and not in use. */
static int new_id(const struct registry *registry, uint64_t *ret)
{
    do {
        if (gnutls_rnd(GNUTLS_RND_RANDOM, ret, sizeof(*ret)) < 0)
            return -EIO;
    } while (*ret == 0 || registry_find(registry, ROLE_INCOMING, *ret, 0));
    return 0;
}

/* The end of both: it waits for its peer, and outlives the broker. */
static void finish_setup(struct migration *migration)
{
    migration_await_peer(migration);
    migration_store(migration);
}

int migration_prepare(const struct migration_services *services, const char *vm, struct options *options,
                      uid_t uid, struct migration **ret, sd_bus_error *error)
{
    uint8_t secret[MESSAGE_SECRET_SIZE];
    struct migration *migration;
    uint64_t id;
    int r = admit_make_room(services->registry, services->store, options->n_streams, error);

    if (r >= 0)
        r = new_id(services->registry, &id);
    if (r >= 0)
        r = migration_new(services, ROLE_INCOMING, id, 0, vm, options, uid, &migration);
    if (r < 0)
        return r;
    /* The port before the ticket, which names the port that it got; the helper last, for it
     * needs the ticket's secret. */
    r = streams_open(&migration->streams, error);
    if (r >= 0 && !migration->options.no_endpoints) {
        r = port_acquire(services->port, error);
        migration->expects_peers = r >= 0;
    }
    if (r >= 0)
        r = ticket_issue(&migration->entry.identity, &migration->options, services->port,
                         &migration->status.ticket, secret, error);
    if (r >= 0)
        r = start_helper(migration, secret, error);
    explicit_bzero(secret, sizeof(secret));
    if (r < 0) {
        migration_free(migration);
        return r;
    }
    finish_setup(migration);
    migration_log(&migration->entry.identity, LOG_INFO, LOG_PREPARED,
                  "Prepared: waits for its source for %" PRIu64 " s.", migration->options.expire / 1000000);
    services->events->made(services->userdata, migration);
    *ret = migration;
    return 0;
}

static int open_outgoing(struct migration *migration, const struct ticket *ticket, sd_bus_error *error)
{
    struct options *options = &migration->options;
    int r;

    options->security = ticket->security;
    if (options->n_endpoints == 0) {
        memcpy(options->endpoints, ticket->endpoints, sizeof(ticket->endpoints));
        options->n_endpoints = (uint32_t)endpoint_remove_own(options->endpoints, ticket->n_endpoints);
    }
    r = permitted_endpoints(migration->services->config, migration->entry.identity.uid, options, error);
    if (r >= 0)
        r = streams_open(&migration->streams, error);
    return r < 0 ? r : start_helper(migration, ticket->secret, error);
}

int migration_start(const struct migration_services *services, const char *vm, const char *text,
                    struct options *options, uid_t uid, struct migration **ret, sd_bus_error *error)
{
    struct ticket ticket;
    struct migration *migration = NULL;
    int r = ticket_accept(services, text, options, &ticket, error);

    if (r < 0)
        return r;
    r = admit_make_room(services->registry, services->store, options->n_streams, error);
    if (r >= 0)
        r = migration_new(services, ROLE_OUTGOING, ticket.id,
                          registry_free_number(services->registry, ROLE_OUTGOING, ticket.id), vm, options,
                          uid, &migration);
    if (r >= 0)
        r = ticket_digest(&ticket, migration->ticket_digest);
    if (r >= 0)
        r = open_outgoing(migration, &ticket, error);
    ticket_clear(&ticket);
    if (r < 0) {
        if (migration)
            migration_free(migration);
        return r;
    }
    finish_setup(migration);
    if (migration->options.n_endpoints > 0)
        migration_log(&migration->entry.identity, LOG_INFO, LOG_PREPARED, "Started: dials %s.",
                      migration->options.endpoints[0]);
    else
        migration_log(&migration->entry.identity, LOG_INFO, LOG_PREPARED,
                      "Started: waits for AddPeerConnection.");
    services->events->made(services->userdata, migration);
    *ret = migration;
    return 0;
}
