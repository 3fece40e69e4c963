/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The sockets of endpoints: a broker listens for peers on one, and dials the peer by another. */

#include <stddef.h>

#include "common/address.h"

/* A listening socket, non-blocking, close-on-exec; or a negative errno. Removes a stale UNIX socket that is
 * in the way. */
int endpoint_listen(const struct endpoint *endpoint);

/* Whether it is a socket that listens. */
bool endpoint_listens(int fd);

/* What endpoint_listen() is to be called with for another socket like this one. Of size 0 where it has no
 * address. */
void endpoint_of_listener(int fd, struct endpoint *ret);

/* A socket that connects or is connected; or a negative errno. Wait for EPOLLOUT, then call
 * endpoint_connected(). */
int endpoint_connect(const struct endpoint *endpoint);

/*
 * How endpoint_connect() came out, a negative errno if badly. Of a TCP socket that is connected the kernel
 * still keeps "connecting" until connect(2) is called again, and a socket that was reset in that state can be
 * connected anew, elsewhere, by its next holder (MSG_FASTOPEN). So this calls it; afterwards the answer is
 * EISCONN for ever.
 */
int endpoint_connected(int fd);

/* Options of a peer connection: no delay, keep-alive, a receive buffer that a distance does not fill; a UNIX
 * one refuses descriptors. */
void endpoint_tune(int fd);

/*
 * And when data that is not acknowledged makes a connection lost. Only for control connections, which are
 * always read: the time counts also where the other side's window is closed (tcp(7)), as a channel's is while
 * QEMU does not read.
 */
void endpoint_tune_control(int fd);

/* Endpoints for which there was no room. */
struct endpoints_left {
    size_t n;
    char names[200]; /* of the first ones */
};

/*
 * How peers can reach a listener: its address, or where it listens on all of them, those that this host has
 * now (only where it has no other: loopback): first those of the interface that has the address near (an IP
 * address, numeric; NULL or no interface's: none is), then those of the default routes, then the others.
 * Returns how many were written to ret. left: what found no room is added to it; may be NULL.
 */
size_t endpoint_announce(int listener, const char *near, char (*ret)[ADDRESS_TEXT_MAX], size_t max,
                         struct endpoints_left *left);

/*
 * Removes those of TCP that are this host's own, unless all are on this host, as paths are: a peer on another
 * host does not have them, though a bridge of its own may have the same address. n: at most
 * TICKET_ENDPOINTS_MAX. Returns how many are left.
 */
size_t endpoint_remove_own(char (*endpoints)[ADDRESS_TEXT_MAX], size_t n);
