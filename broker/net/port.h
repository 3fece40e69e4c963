/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The peer port: the listening sockets, and the gate that accepts on them. Open only while a migration
 * expects a peer. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "broker/config/config.h"
#include "broker/net/endpoint.h"
#include "common/error.h"
#include "common/message.h"

struct helper_links;
struct port;
struct store;

struct port_events {
    /* A peer connection of this kind came for this migration, with this mark (NULL: none); borrows fd.
     * Returns why the peer is rejected, or none where the connection was passed on. */
    enum vf_error (*arrived)(void *userdata, enum peer_kind kind, uint64_t id,
                             const struct message_mark *mark, int fd);
};

/* Closed. Borrows everything. 0 or a negative errno. */
int port_new(const struct config *config, sd_event *event, struct store *store, struct helper_links *helpers,
             const struct port_events *events, void *userdata, struct port **ret);
struct port *port_free(struct port *port);

/* One more migration that expects peers: the first opens the port. ≥ 0, or negative with error set. */
int port_acquire(struct port *port, sd_bus_error *error);

/* After a start: the port as the broker before this one had it, a migration that holds it, and, once all do,
 * the port without one is closed; and where something of it is missing that is made again. */
void port_restore(struct port *port);
void port_hold(struct port *port);
void port_settle(struct port *port);

/* One less: the last closes it. */
void port_release(struct port *port);

bool port_is_open(const struct port *port);

/* Where peers can reach it now, or (closed) where it will listen; near, left: see endpoint_announce().
 * Returns how many were written to ret. */
size_t port_endpoints(struct port *port, const char *near, char (*ret)[ADDRESS_TEXT_MAX], size_t max,
                      struct endpoints_left *left);
