/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A connection on which frames come and go. It knows no migration: what a frame means, and what a loss means,
 * is decided by the caller, which is told of both.
 */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "helper/carrier/carrier.h"
#include "helper/control/events.h"
#include "helper/protocol/frame.h"

/*
 * Borrows all. While *halted is true, nothing is read or sent any more, but for the last words. 0 or -ENOMEM.
 */
int control_new(sd_event *event, struct ring_pool *pool, const bool *halted,
                const struct control_events *events, void *userdata, struct control **ret);
struct control *control_free(struct control *control);

/*
 * Takes a connection that has proved itself, whatever comes of it, in place of none. Call control_read()
 * then. 0 or a negative errno.
 */
int control_adopt(struct control *control, struct carrier *carrier);

/* Reads and tells what is there: after control_adopt(), since no poll sees what came with the handshake. */
void control_read(struct control *control);

/* Closes the connection, if there is one. */
void control_clear(struct control *control);

/* The connection, or −1; the control keeps it. */
int control_fd(const struct control *control);

/* A secret of this connection's two ends. 0 or a negative errno. */
int control_export_key(struct control *control, uint8_t ret[static KEY_SIZE]);

/* The connection is lost: whether the peer had said why. Nothing else that it said counts. */
bool control_last_word(struct control *control, struct frame *ret);

/* The end: sends what waits, and waits for the peer to have read it. events.drained() tells when that is
 * over, which may be at once. */
void control_linger(struct control *control);
