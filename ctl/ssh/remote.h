/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Something on another host as a socket of this one: 'ssh HOST vmferryctl stdio WHAT …' with a socketpair as
 * its stdin and stdout. verbs/stdio.c is the far end.
 */

#include "ctl/loop.h"

#define REMOTE_GREETING                                                                                     \
    "vmferryctl stdio 1 " /* then the uid of the far end, or of what it reached; "bus" adds, after a blank, \
                             the address there at which ssh arrived, where it is known */

struct remote;

/*
 * Starts ssh and waits until the far end says that it is connected. what: the arguments after "stdio",
 * NULL-terminated; no shell interprets them. stays: ssh may outlive this program. It may share a connection
 * with others, see master.h. 0, and *ret is the caller's: remote_free() or remote_leave(). Or -1 with a
 * trouble, which says what ssh, or the far end, said on stderr.
 */
int remote_open(struct ctl *ctl, const char *host, bool stays, const char *const *what, struct remote **ret,
                struct trouble *trouble);

/* The same in two steps, for a caller that does other things while ssh logs in. Where the second one fails,
 * remote is still the caller's. */
int remote_begin(struct ctl *ctl, const char *host, bool stays, const char *const *what, struct remote **ret,
                 struct trouble *trouble);
int remote_finish(struct remote *remote, struct trouble *trouble);

/* The socket: the caller's from now on, once. Non-blocking. */
int remote_take_fd(struct remote *remote);

/* The uid of the process at the far end. */
uid_t remote_uid(const struct remote *remote);

/* The connection is closed: waits, 5 s at most, for ssh's last words and its end. -1 with a trouble. */
int remote_hear_out(struct remote *remote, struct trouble *trouble);

/* The address of the other host at which ssh arrived: an IP address, numeric; "" where it did not say. */
const char *remote_address(const struct remote *remote);

/* Whether ssh has ended. */
bool remote_ended(const struct remote *remote);

/* What was said of the reason, on one line; "" for nothing. Valid until the next call. */
const char *remote_reason(struct remote *remote);

/* Frees what we have of it, and lets it run, with the connection that it shares. */
void remote_leave(struct remote *remote);

/* Ends ssh, if it still runs, and waits for its end. NULL: nothing. */
void remote_free(struct remote *remote);

static inline void remote_freep(struct remote **remote)
{
    remote_free(*remote);
}
