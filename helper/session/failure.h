/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "helper/session/internal.h"

/* Source: what the migration comes to when a connection that it made has failed. */
void session_on_peer_failed(struct session *session, const struct peer_failure *failure);
