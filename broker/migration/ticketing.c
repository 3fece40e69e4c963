/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/ticketing.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/errors.h"
#include "broker/migration/log.h"
#include "broker/net/endpoint.h"
#include "broker/net/port.h"
#include "common/clock.h"

int ticket_issue(const struct identity *identity, struct options *options, struct port *port, char **ret_text,
                 uint8_t secret[static MESSAGE_SECRET_SIZE], sd_bus_error *error)
{
    struct ticket ticket = {.id = identity->id, .security = options->security};
    struct endpoints_left left = {0};
    int r;

    if (options->n_endpoints == 0 && !options->no_endpoints)
        options->n_endpoints =
            (uint32_t)port_endpoints(port, options->near, options->endpoints, TICKET_ENDPOINTS_MAX, &left);
    if (left.n > 0)
        migration_log(
            identity, LOG_WARNING, NULL,
            "A ticket has room for %d addresses, and %zu of this host's are left out: %s. Name those that "
            "peers can reach with --listen=, or with the option 'endpoints'.",
            TICKET_ENDPOINTS_MAX, left.n, left.names);
    if (options->n_endpoints == 0 && !options->no_endpoints)
        return error_set(error, VF_ERROR_SOCKET_UNAVAILABLE,
                         "This host has no address that a peer could dial. Give one in 'endpoints'.");
    ticket.expiry = identity->started + options->expire;
    ticket.n_endpoints = options->n_endpoints;
    memcpy(ticket.endpoints, options->endpoints, sizeof(ticket.endpoints));
    if (gnutls_rnd(GNUTLS_RND_KEY, ticket.secret, sizeof(ticket.secret)) < 0)
        return -EIO;
    *ret_text = malloc(TICKET_TEXT_MAX);
    r = *ret_text ? ticket_encode(&ticket, *ret_text) : -ENOMEM;
    memcpy(secret, ticket.secret, MESSAGE_SECRET_SIZE);
    ticket_clear(&ticket);
    return r;
}

int ticket_digest(const struct ticket *ticket, char ret[static TICKET_DIGEST_MAX])
{
    uint8_t digest[(TICKET_DIGEST_MAX - 1) / 2];

    if (gnutls_hash_fast(GNUTLS_DIG_SHA256, ticket->secret, sizeof(ticket->secret), digest) < 0)
        return -EIO;
    for (size_t i = 0; i < sizeof(digest); i++)
        snprintf(ret + 2 * i, 3, "%02x", digest[i]);
    return 0;
}

/* An id is no secret: only the same secret is the same ticket. One from a record that does not say counts. */
static bool is_used(const struct registry *registry, const struct ticket *ticket)
{
    char digest[TICKET_DIGEST_MAX];
    const struct entry *entry = NULL;

    if (ticket_digest(ticket, digest) < 0)
        digest[0] = '\0';
    while ((entry = registry_next_of_id(registry, ROLE_OUTGOING, ticket->id, entry)))
        if (digest[0] == '\0' || entry->ticket_digest[0] == '\0' || strcmp(entry->ticket_digest, digest) == 0)
            return true;
    return false;
}

/* Holds the ticket against this host, the clock and the options. */
static int check_ticket(const struct migration_services *services, const struct ticket *ticket,
                        const struct options *options, sd_bus_error *error)
{
    uint64_t now = wall_now();

    if (ticket->security == SECURITY_PLAIN && !services->config->allow_plain)
        return error_set(
            error, VF_ERROR_SECURITY_MISMATCH,
            "The ticket is for 'plain', which this host does not allow (AllowPlain=). Prepare the "
            "migration with 'tls'.");
    if (options->has_security && options->security != ticket->security)
        return error_set(
            error, VF_ERROR_SECURITY_MISMATCH,
            "The ticket is for '%s', the option 'security' says '%s'. Prepare the migration with the "
            "security that you want.",
            ticket->security == SECURITY_PLAIN ? "plain" : "tls",
            options->security == SECURITY_PLAIN ? "plain" : "tls");
    if (is_used(services->registry, ticket))
        return error_set(error, VF_ERROR_TICKET_USED,
                         "The ticket of migration %016" PRIx64
                         " has been used on this host already. Call "
                         "PrepareIncoming for a new one.",
                         ticket->id);
    if (ticket->expiry <= now)
        return error_set(error, VF_ERROR_TICKET_EXPIRED,
                         "The ticket of migration %016" PRIx64 " expired %" PRIu64
                         " s ago by this host's clock. Call "
                         "PrepareIncoming for a new one, with a larger 'expire-usec' if need be.",
                         ticket->id, (now - ticket->expiry) / 1000000);
    return 0;
}

static int read_ticket(const char *text, struct ticket *ret, sd_bus_error *error)
{
    switch (ticket_decode(text, ret)) {
    case TICKET_OK:
        return 0;
    case TICKET_VERSION:
        return error_set(
            error, VF_ERROR_PROTOCOL_MISMATCH,
            "The ticket is of another version (this vmferry reads 'vmferry1:'). Upgrade the older side.");
    default:
        return error_set(
            error, VF_ERROR_INVALID_TICKET,
            "That is no whole, unchanged ticket. Pass exactly the text that PrepareIncoming gave, from "
            "'vmferry1:' to its end.");
    }
}

int ticket_accept(const struct migration_services *services, const char *text, const struct options *options,
                  struct ticket *ret, sd_bus_error *error)
{
    int r = read_ticket(text, ret, error);

    if (r < 0)
        return r;
    r = check_ticket(services, ret, options, error);
    if (r < 0)
        ticket_clear(ret);
    return r;
}
