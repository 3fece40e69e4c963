/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The broker is root and does things in the name of callers who are not. So what such a caller names is used
 * only as he could use it himself: paths below the allowed directories, in a directory that is his, to
 * sockets that are his and that he listens on; sockets for nobody but himself.
 */

#include <stdbool.h>
#include <sys/types.h>

#include "broker/config/config.h"
#include "broker/sockets/qemu-socket.h"

/*
 * Whether a caller has only the rights that polkit gave him: then the broker, which has more, does with the
 * paths that he names only what he could do himself.
 */
bool deputy_is_restricted(uid_t uid);

/*
 * What a path that this caller named may lead to. Above 0: whatever, he is not restricted. 0: what *ret says.
 * −EOUTSIDE: nothing, the path is in none of the allowed directories.
 */
int deputy_scope(const struct config *config, uid_t uid, const char *path, struct socket_scope *ret);

/* Why a path was not used; a sentence (static), or NULL where the errno has nothing to do with the rules. */
const char *deputy_why(int r);
