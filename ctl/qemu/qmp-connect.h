/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The way to a monitor's socket of this host. */

#include "ctl/loop.h"

#define QMP_GREETING_TIMEOUT (5 * SECOND) /* QEMU greets at once, unless another client has its monitor */

/* Connects to it: an FD that is the caller's, or -1 with a trouble. ret_uid: as whom its process runs. */
int qmp_connect(struct ctl *ctl, const char *path, uid_t *ret_uid, struct trouble *trouble);

/*
 * As whom the process runs that made the socket to which fd is connected. SO_PEERCRED says as whom it ran
 * then; a QEMU with -runas (or -run-with user=) changes that later. Its pid is believed only where a pidfd
 * shows that it is still this process's. 0 or a negative errno.
 */
int qmp_peer_uid(int fd, uid_t *ret);
