/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Source: the control connection is dialled once more. */

#include "helper/session/internal.h"

/* The first one has failed before the peer greeted. It is dialled again in a moment, for others may have
 * taken its place there, who know the id. False where that was done often enough. */
bool session_dial_first_again(struct session *session);
bool session_has_dialled_again(const struct session *session);

/* The connection that was to follow a lost one could not be had; tries again later. */
void session_redial(struct session *session);

/* The same after a loss: at once after session_redial_at_once(), for that connection was greeted; a peer that
 * hangs up on each new one is dialled with pauses. */
void session_redial_after_loss(struct session *session);
void session_redial_at_once(struct session *session);

/* The peer's address says that it knows nothing of this migration. True where it has said so often enough:
 * any host on the way can say so, and a gate that has just been started. */
bool session_is_rejected(struct session *session);

/* It says something else. */
void session_not_rejected(struct session *session);
