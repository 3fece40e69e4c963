/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One host's broker: the connection to its bus, and calls over it. */

#include <netinet/in.h>

#include "ctl/loop.h"
#include "ctl/ssh/remote.h"

#define BROKER_NAME         "org.vmferry.Broker1"
#define BROKER_PATH         "/org/vmferry/Broker1"
#define MIGRATION_INTERFACE "org.vmferry.Migration1"

struct side {
    struct ctl *ctl;
    const char *host;  /* where ssh goes; NULL: it is on this one */
    const char *where; /* "", or " at HOST": for messages */
    char *where_text;
    uid_t uid; /* the uid that the broker sees: ours, or that of the far end */
    sd_bus *bus;
    struct remote *link; /* carries the bus of another host */
};

/* Opens the bus that --host=, --address= and --user name. */
int side_open(struct ctl *ctl, struct side *ret, struct trouble *trouble);

/*
 * Opens the bus of HOST, over ssh. HOST may also be the address of a UNIX socket ("unix:path=…"): then it is
 * another bus on this host. Any other D-Bus address is refused, since it can name a program to start.
 */
int side_open_host(struct ctl *ctl, const char *host, struct side *ret, struct trouble *trouble);

/*
 * The same in two parts, so that ssh logs in while the caller does other things in the event loop. Where ssh
 * may ask the user for something it starts with the second part. side_close() is the caller's after the
 * first.
 */
int side_begin_host(struct ctl *ctl, const char *host, struct side *ret, struct trouble *trouble);
int side_finish_host(struct side *side, struct trouble *trouble);

void side_close(struct side *side);

/*
 * The address at which the bus's connection arrived at its host, as far as this end knows: an IP address that
 * is not of this host alone; "" for a bus on this host.
 */
void side_address(const struct side *side, char ret[static INET6_ADDRSTRLEN]);

/*
 * Calls a method of the object at path and waits for its reply while the loop turns. types and what follows
 * are as for sd_bus_message_append(3). doing: for the trouble, "Cannot …". ret may be NULL.
 */
int side_call(struct side *side, const char *path, const char *interface, const char *member,
              sd_bus_message **ret, struct trouble *trouble, const char *doing, const char *types, ...);

/* The same for a message that was made by side_message(). */
int side_message(struct side *side, const char *path, const char *interface, const char *member,
                 sd_bus_message **ret, struct trouble *trouble);
int side_send(struct side *side, sd_bus_message *m, uint64_t timeout, sd_bus_message **ret,
              struct trouble *trouble, const char *doing);
