/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The way to a monitor's socket of this host. */

#include "ctl/loop.h"

#define QMP_GREETING_TIMEOUT (5 * SECOND) /* QEMU greets at once, unless another client has its monitor */

/* Connects to it: an FD that is the caller's, or -1 with a trouble. ret_uid: the uid of its process. */
int qmp_connect(struct ctl *ctl, const char *path, uid_t *ret_uid, struct trouble *trouble);

/*
 * The uid of the process that made the socket to which fd is connected. SO_PEERCRED has its uid of that
 * moment, which a QEMU with -runas (or -run-with user=) changes later; so this reads it from /proc, if a
 * pidfd proves that the pid is still that process's. 0 or a negative errno.
 */
int qmp_peer_uid(int fd, uid_t *ret);
