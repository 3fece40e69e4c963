/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Domains of libvirt: what the verbs call. Where vmferryctl was built without libvirt (none.c) each says so.
 */

#include "ctl/bus/find.h"
#include "ctl/bus/findings.h"
#include "ctl/bus/tunnel.h"

/* 'migrate' without --qmp=: the exit status, or -1 with a trouble. */
int libvirt_migrate(struct ctl *ctl, struct trouble *trouble);

/* 'send --libvirt', with a ticket that was read: through the tunnel alone, without ssh. */
int libvirt_send(struct ctl *ctl, const char *ticket, struct trouble *trouble);

/*
 * Has libvirt end the migration of a domain that this tunnel carries, at its source; at the destination,
 * where libvirt cannot, it refuses unless nothing of the domain is there. 1: libvirt did, 0: libvirt has
 * nothing to end, so that the tunnel may be cancelled, or -1.
 */
int libvirt_cancel(struct side *side, const struct found *found, struct trouble *trouble);

/*
 * What 'check' looks at where libvirt drives the migration: nothing where there is no libvirt, unless
 * --domain= asks for it.
 */
void libvirt_check(struct check *check);
