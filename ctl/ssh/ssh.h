/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One ssh as a child of this program: its options, its process, and what it says on stderr. $VMFERRY_SSH
 * replaces "ssh" (it is split at blanks). What a user's ssh_config(5) says for people at a terminal does not
 * hold for it; ssh.c has the table.
 */

#include "ctl/loop.h"

struct ssh;

/* Which connection carries its bytes. */
enum ssh_way {
    SSH_ALONE,  /* one of its own that no other ssh uses */
    SSH_MASTER, /* one that it keeps for others, too */
    SSH_SHARED, /* that of the master at control, or one of its own where the master takes no more */
};

struct ssh_use {
    enum ssh_way way;
    const char *control; /* ControlPath; NULL where it is alone */
    bool stays;          /* it outlives this program */
    const char *command; /* for the shell at the other host */
};

/* Whether ssh may ask: for a password, a passphrase, or whether a host key is right. */
bool ssh_may_ask(const struct ctl *ctl);

/* How long it may take to connect and to be answered, in µs. */
uint64_t ssh_patience(const struct ctl *ctl);

/* Starts it; copies host, and borrows use for the call. 0, and *ret is the caller's: ssh_free() or
 * ssh_leave(). Or -1 with a trouble. */
int ssh_start(struct ctl *ctl, const char *host, const struct ssh_use *use, struct ssh **ret,
              struct trouble *trouble);

/* Its stdin and stdout, one socket; non-blocking. ssh_fd() lends it, ssh_take_fd() gives it away, once; −1
 * after that. */
int ssh_fd(const struct ssh *ssh);
int ssh_take_fd(struct ssh *ssh);

bool ssh_ended(const struct ssh *ssh);

/* It has closed its stdout: what it has to say and how it ended follow at once. Waits for both, 5 s at most.
 * 0, also when that was not enough (ssh_ended()); or -1 with a trouble. */
int ssh_hear_out(struct ssh *ssh, struct trouble *trouble);

/*
 * The reason, as far as it was said, on one line; "" for none. It is valid until the next call. The text may
 * hold anything but line ends: trouble_set() makes it printable.
 */
const char *ssh_reason(struct ssh *ssh);

/* The far end has answered: what was said until now is no reason for what follows. */
void ssh_is_through(struct ssh *ssh);

/* It has failed, or is about to end: waits for that, and says why. Returns -1. */
int ssh_failed(struct ssh *ssh, struct trouble *trouble);

/* Closes its stdin, unless that was given away, frees what we have of it, and lets it run. */
void ssh_leave(struct ssh *ssh);

/* Ends it, if it still runs, and waits for its end. NULL: nothing. */
void ssh_free(struct ssh *ssh);

static inline void ssh_freep(struct ssh **ssh)
{
    ssh_free(*ssh);
}
