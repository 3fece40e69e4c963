/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Makes the ticket of an incoming migration; and holds the ticket of an outgoing one against what is allowed.
 */

#include "broker/migration/options.h"
#include "broker/migration/registry.h"
#include "broker/migration/services.h"

#define TICKET_DIGEST_MAX (2 * 32 + 1)

/* SHA-256 of its secret, in hexadecimal: tells it from all others of the same id. 0 or a negative errno. */
int ticket_digest(const struct ticket *ticket, char ret[static TICKET_DIGEST_MAX]);

/*
 * Makes a ticket and its secret; endpoints are those of the port, where the options name none. *ret_text is
 * the caller's, on failure too. ≥ 0, or negative with error set.
 */
int ticket_issue(const struct identity *identity, struct options *options, struct port *port, char **ret_text,
                 uint8_t secret[static MESSAGE_SECRET_SIZE], sd_bus_error *error);

/*
 * Reads a ticket and holds it against this host, the clock and the options. ≥ 0, or negative with error set:
 * then nothing of it is left.
 */
int ticket_accept(const struct migration_services *services, const char *text, const struct options *options,
                  struct ticket *ret, sd_bus_error *error);
