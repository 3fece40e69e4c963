/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a migration was asked to be: the options of PrepareIncoming and StartOutgoing, read. */

#include <stdbool.h>
#include <sys/types.h>
#include <systemd/sd-bus.h>

#include "broker/net/ticket.h"
#include "common/message.h"
#include "common/stream-names.h"

#define OWNER_MAX 64 /* bytes of a user's name, its NUL included */

/* The layout 'libvirt:NAME': NAME's bytes, the NUL included; no longer one fits a socket's path. */
#define LAYOUT_NAME_MAX 64
#define LAYOUT_INFIX                                                                      \
    ".tunnelmigrate.dest." /* STREAM, this, NAME: what AppArmor lets a libvirt domain use \
                            */

struct options {
    uint32_t n_streams;
    char streams[MESSAGE_STREAMS_MAX][MESSAGE_STREAM_MAX];
    char *sockets[MESSAGE_STREAMS_MAX]; /* owned; by stream; NULL: the default path; "": none */
    char owner[2 * OWNER_MAX];          /* of the sockets, as the caller wrote it; "": not said */
    uid_t owner_uid;                    /* looked up: where has_owner */
    gid_t owner_gid;
    bool has_owner;
    bool has_group;               /* the group may use them too */
    char layout[LAYOUT_NAME_MAX]; /* the domain whose libvirt is to reach the sockets; "": none, ours */
    bool has_security;
    enum message_security security;
    uint32_t n_endpoints; /* incoming: what the ticket says; outgoing: what is dialled instead of that */
    char endpoints[TICKET_ENDPOINTS_MAX][ADDRESS_TEXT_MAX];
    char near[INET6_ADDRSTRLEN]; /* incoming: an address of the interface that the ticket names first; "" */
    bool no_endpoints;           /* incoming: managers bring all peer connections, and no port is opened */
    uint64_t expire;             /* µs */
    uint64_t resume_timeout;     /* µs; 0 = never resume */
    uint64_t bandwidth_limit;    /* bytes/s; 0 = none */
    uint64_t expected_bytes;     /* 0 = not known */
    char *client_id;             /* owned; NULL: none */
    bool tie_to_caller;
    char *tied_to; /* owned; the name on the bus to which it is tied, until it is finished; NULL: none */
};

void options_clear(struct options *options);

/* The index of a stream's name, or −1. */
int options_stream(const struct options *options, const char *name);

/* Whether a socket has room for this path; negative with error set where it has not. */
int options_check_path(const char *path, const char *stream, sd_bus_error *error);

/* The same for a path of the layout, whose domain's name is what makes it too long. */
int options_check_layout(const char *path, const struct options *options, sd_bus_error *error);
