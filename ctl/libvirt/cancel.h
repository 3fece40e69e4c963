/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ctl/bus/find.h"

/*
 * Has libvirt end the migration of a domain that this tunnel carries, at its source; at the destination,
 * where libvirt cannot, it refuses unless nothing of the domain is there. 1: libvirt did, 0: libvirt has
 * nothing to end, so that the tunnel may be cancelled, or -1.
 */
int libvirt_cancel(struct side *side, const struct found *found, struct trouble *trouble);
