/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The way to a monitor's socket of this host. */

#include "ctl.h"

#define QMP_GREETING_TIMEOUT (5 * SECOND) /* QEMU greets at once, unless another client has its monitor */

/* Connects to it: an FD that is the caller's, or -1 with a trouble. ret_uid: as whom its process runs. */
int qmp_connect(struct ctl *ctl, const char *path, uid_t *ret_uid, struct trouble *trouble);
