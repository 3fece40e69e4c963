/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the broker says. */

#include "helper/session/internal.h"

/* Takes fd. */
void session_on_message(struct session *session, const union message *m, int fd);

/* The broker is gone for good. why: what this process could not do, which ends it; NULL: it closed its
 * socket. */
void session_on_broker_gone(struct session *session, const char *why);
