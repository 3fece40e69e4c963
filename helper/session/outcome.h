/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the source's owner says that became of the VM goes to the peer's broker. The tunnel cannot know it,
 * and QEMU knows it only after the tunnel has carried all: so an owner that tells how far it is has the
 * source wait a little with the end, until it has told that as well, or has cancelled.
 */

#include "helper/session/internal.h"

/* From the broker. */
void session_hold(struct session *session, const struct message_hold *m);
void session_take_outcome(struct session *session, const struct outcome *outcome);

/* A new broker may be one of before, which takes no PEER_OUTCOME. */
void session_forget_broker(struct session *session);

/* The peer has said HELLO: what it has to know, and does not, is sent. */
void session_tell_outcome(struct session *session);

/* From the peer. */
void session_hear_outcome(struct session *session, const struct outcome *outcome);
