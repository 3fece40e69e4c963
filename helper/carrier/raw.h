/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A carrier of bytes as they are, from and to memory or a pipe: QEMU's sockets, and `plain` once it is
 * proved. */

#include "helper/carrier/carrier.h"

/* Takes fd on success. 0 or a negative errno. */
int carrier_raw_new(int fd, struct carrier **ret);

/* Its operations, for a carrier that becomes one: see struct carrier_ops. It holds neither input nor output.
 */
ssize_t raw_recv(struct carrier *carrier, struct ring *ring, size_t max);
ssize_t raw_send(struct carrier *carrier, struct ring *ring);
int raw_flush(struct carrier *carrier);
bool raw_holds_nothing(const struct carrier *carrier);
