/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The states of a migration, and its one end. */

#include "helper/session/internal.h"

/* The only ways to another state; they refuse what cannot be, and log the rest for --verbose. The broker is
 * told of the first. */
void session_set_state(struct session *session, enum message_state state);
bool session_set_connection(struct session *session, enum connection connection);
void session_set_recovery(struct session *session, enum recovery_stage stage);
void session_set_ending(struct session *session, enum ending_stage stage);

/* Tells the broker the state (again). */
void session_tell_state(struct session *session);

/*
 * The one end of a migration: error is none where the ledgers prove it done. The local QEMUs learn of it at
 * once, the peer where tell_peer, the broker by RESULT; then the event loop ends. Later calls change nothing.
 * It frees nothing that a caller up the stack may hold: session_free() does, after the loop.
 */
void session_end(struct session *session, enum vf_error error, bool tell_peer, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Both ledgers are proved. */
void session_end_done(struct session *session);

/* The peer sent what cannot be true of this channel. For struct channel_events, too. */
void session_end_violated(void *userdata, uint32_t channel, const char *what);
