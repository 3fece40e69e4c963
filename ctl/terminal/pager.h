/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ctl/loop.h"

/*
 * Where stdout is a terminal and --no-pager is not given: from here on it goes through $SYSTEMD_PAGER, $PAGER
 * or less(1). pager_close() waits until it was read. Without a pager all is as before.
 */
void pager_open(const struct ctl *ctl);
void pager_close(void);
