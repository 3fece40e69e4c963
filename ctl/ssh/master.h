/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Where ssh may ask (a password, a touch of a token), it asks once per host: one ssh is connected first, and
 * the bus, the monitor and, with --ssh, the channels go through it (ssh_config(5), ControlMaster). Nothing
 * else can use it: its socket is in a directory of its own that only this user may enter.
 *
 * It ends with vmferryctl, but not before a channel that was left to itself, as in post-copy: it runs 'cat'
 * at the other host, which ends when vmferryctl closes its stdin, also by being killed. From then on ssh
 * stays as long as others go through it, and not longer.
 *
 * The price is that the channels share a TCP connection: a page that the guest waits for waits behind the
 * bulk of the others. So where ssh may not ask, each has a connection of its own: it costs nothing to the
 * user, and no connection depends on another one.
 */

#include "ctl/ssh/ssh.h"

struct master;

/*
 * The ControlPath of this host's master, which is connected before it returns, or NULL in *ret where there is
 * none (ssh may not ask; no directory can be made). Borrowed: valid until the next call for this host, or
 * master_free_all(). 0, or -1 with a trouble where ssh fails.
 */
int master_get(struct ctl *ctl, const char *host, const char **ret, struct trouble *trouble);

/*
 * Where ssh may not ask and ctl->one_login is set: fills in use for a connection that ends with vmferryctl.
 * The first one to a host leads, and those that follow share it, for a login costs more than all that they
 * carry. Where the first has ended each has one of its own. It is not for channels of QEMU's. use->control is
 * borrowed until master_free_all(). 0, or -1 with a trouble.
 */
int master_lead(struct ctl *ctl, const char *host, struct ssh_use *use, struct trouble *trouble);

/* Why the host's master has ended; "" where it has not, or said nothing. */
const char *master_reason(struct ctl *ctl, const char *host);

/* A channel that goes through this host's master is left to itself: master_free_all() lets it run on. */
void master_leave(struct ctl *ctl, const char *host);

/* Ends them all but those that were left, and removes what they had. */
void master_free_all(struct ctl *ctl);
