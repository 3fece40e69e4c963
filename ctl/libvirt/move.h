/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The migration of a domain of libvirt, from its first call to its end. */

#include "ctl/loop.h"

/* 'migrate' without --qmp=: the exit status, or -1 with a trouble. */
int libvirt_migrate(struct ctl *ctl, struct trouble *trouble);

/* 'send --libvirt', with a ticket that was read: through the tunnel alone, without ssh. */
int libvirt_send(struct ctl *ctl, const char *ticket, struct trouble *trouble);
