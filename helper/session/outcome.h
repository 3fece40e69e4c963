/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the source's owner says that became of the VM goes to the peer's broker. The tunnel cannot know it. */

#include "helper/session/internal.h"

/* From the broker. */
void session_take_outcome(struct session *session, const struct outcome *outcome);

/* A broker that says HOLD takes PEER_OUTCOME; a new one may be one of before, which does not. */
void session_meet_broker(struct session *session);
void session_forget_broker(struct session *session);

/* The peer has said HELLO: what it has to know, and does not, is sent. */
void session_tell_outcome(struct session *session);

/* From the peer. */
void session_hear_outcome(struct session *session, const struct outcome *outcome);
