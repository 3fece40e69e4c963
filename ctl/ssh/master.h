/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Where ssh may ask (a password, a touch of a token), it asks once for what vmferryctl itself says to a host:
 * one ssh per host is connected first, and the bus and the monitor go through it (ssh_config(5),
 * ControlMaster). Nothing else can use it: its socket is in a directory of its own that only this user may
 * enter. It ends with vmferryctl.
 *
 * With --ssh the channels do not go through it. They are not to share a TCP connection, since a page that the
 * guest waits for must not wait behind the bulk of the others; and in post-copy they must outlive vmferryctl,
 * which a connection that ends with it cannot give, and one that does not end with it would be left for ever.
 * So each channel's ssh asks for itself; the manual says how often, and to use an agent.
 *
 * Where ssh may not ask, each has a connection of its own: it costs nothing to the user, and no connection
 * depends on another one.
 */

#include "ctl/ssh/ssh.h"

struct master;

/*
 * The ControlPath of this host's master, which is connected before it returns, or NULL in *ret where there is
 * none (ssh may not ask; no directory can be made). A trouble where ssh fails.
 */
int master_get(struct ctl *ctl, const char *host, const char **ret, struct trouble *trouble);

/* Why the host's master has ended; "" where it has not, or said nothing. */
const char *master_reason(struct ctl *ctl, const char *host);

/* Ends them all, and removes what they had. */
void master_free_all(struct ctl *ctl);
