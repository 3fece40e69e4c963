/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The end of the migration of a domain: the exit status, or -1 with a trouble. */

#include "ctl/libvirt/internal.h"

/* libvirt's call is over. */
int ending_of(struct move *move, struct trouble *trouble);

/* The user has let go of it, and it goes on. */
int ending_detached(struct move *move, struct trouble *trouble);
