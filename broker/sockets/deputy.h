/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The broker has more rights than most callers. What a caller names is used only as the caller could use it:
 * paths below the allowed directories, in a directory of the caller's, to sockets of the caller's on which
 * the caller listens; and sockets are made for no other user.
 */

#include <stdbool.h>
#include <sys/types.h>

#include "broker/config/config.h"
#include "broker/sockets/qemu-socket.h"

/* Whether a caller has only the rights that polkit gave: neither root, nor the broker's own user. */
bool deputy_is_restricted(uid_t uid);

/*
 * What a path that this caller named may lead to. Above 0: anything, the caller is not restricted. 0: what
 * *ret says. −EOUTSIDE: nothing, the path is in none of the allowed directories.
 */
int deputy_scope(const struct config *config, uid_t uid, const char *path, struct socket_scope *ret);

/* Why a path was not used; a sentence (static), or NULL where the errno has nothing to do with the rules. */
const char *deputy_why(int r);
