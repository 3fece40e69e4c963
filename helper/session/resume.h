/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A lost connection to the peer. */

#include "helper/session/internal.h"

/*
 * The connection to the peer is lost. The source dials again; the channels keep QEMU's connections and go on
 * where they were, if that succeeds before the resume time-out. After it the local QEMUs lose their
 * connections: a pre-copy fails, a post-copy is paused. But the migration goes on waiting, with its
 * listeners, and QEMU's next connections (migrate-recover, migrate resume) are new channels of it.
 *
 * From now on nothing is read or sent. The rest takes effect from the event loop, since a caller up the stack
 * may still use what would be closed.
 */
void session_interrupt(struct session *session, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The same at once, for a handler of neither the control connection nor a channel. */
void session_clean_up(struct session *session);

/* For struct control_events: the control connection is lost. */
void session_on_lost(void *userdata, const char *why);
