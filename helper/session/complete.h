/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Source: all is carried, and the migration may end. QEMU knows what became of the VM only after the tunnel
 * has carried all: so an owner that tells how far it is has the end wait a little, until it has told that as
 * well, or has cancelled.
 */

#include "helper/session/internal.h"

/* Ends the migration when nothing is left of it, and nothing waited for. For struct channel_events, too. */
void session_end_if_complete(void *userdata);

/*
 * Whether what QEMU has closed early waits for the owner to cancel. QEMU 10 that is told to cancel closes its
 * socket before it has read what the destination still says. For struct channel_events.
 */
bool session_awaits_cancel(void *userdata);

/* From the broker: the owner will say more within usec. 0: nothing. */
void session_hold(struct session *session, uint64_t usec);

/* It is over: nothing is waited for. */
void session_drop_holds(struct session *session);
