/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the broker says: the handlers of the link. */

#include "helper/session/internal.h"

/* Takes fd. */
void session_on_message(struct link *link, const union message *m, int fd, void *userdata);

/* The broker is gone for good. why: what this process could not do, which ends it; NULL: it closed its
 * socket. */
void session_on_broker_gone(struct link *link, const char *why, void *userdata);
