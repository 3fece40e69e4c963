/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Sockets that managers bring to a running migration: OpenStream, AddStream, AddPeerConnection. */

#include <stdint.h>
#include <systemd/sd-bus.h>

#include "common/message.h"

struct migration;

/* A socketpair for a stream; ret is the caller's. ≥ 0, or negative with error set. */
int supply_open_stream(struct migration *migration, uint32_t stream, int *ret, sd_bus_error *error);

/* AddStream: a caller's connection to QEMU; borrows fd. ≥ 0, or negative with error set. */
int supply_add_stream(struct migration *migration, uint32_t stream, int fd, sd_bus_error *error);

/* AddPeerConnection: a caller's connection to the peer; borrows fd. ≥ 0, or negative with error set. */
int supply_add_peer(struct migration *migration, int fd, sd_bus_error *error);

/* The helper has said that it can keep what waits. */
void supply_hand_over(struct migration *migration);

/* A helper of the broker before this one keeps this socket. */
void supply_kept(struct migration *migration, const struct message_keep *m);
