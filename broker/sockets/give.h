/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Gives what the broker has made to another user. Under systemd the broker has no right to do so: it asks the
 * giver (giver/giver.h), which systemd starts on a connection to vmferry-giver.socket and which stays for as
 * long as the broker does.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct give {
    const char *socket;    /* absolute path of systemd's socket; NULL: we do it ourselves */
    int fd;                /* owned: the connection to it, or −1 */
    bool answered;         /* a giver has, so the next is there soon */
    uint64_t silent_until; /* µs of CLOCK_MONOTONIC: it has not answered, and is not asked before then */
};

/* socket: as above; borrowed. */
void give_init(struct give *give, const char *socket);

/* Connects, so that the giver is there when it is needed; give_end() closes the connection. An error is left
 * to the first give_to(). */
void give_begin(struct give *give);
void give_end(struct give *give);

/*
 * Makes uid the owner of a socket or directory of ours, and gid its group unless that is (gid_t)−1; borrows
 * file, which may be O_PATH. Waits for the giver, but not for long, and after it has not answered not at all
 * for a while. 0 or a negative errno; -ENOLINK, which is logged: the giver cannot be had.
 */
int give_to(struct give *give, int file, uid_t uid, gid_t gid);

/* strerror(3) of what give_to() returns, and for -ENOLINK what to do. */
const char *give_why(int r);
