/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Sockets that callers hand over by AddStream and AddPeerConnection: what they may be, and which were given.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-bus.h>

#define SUPPLIED_SEEN_MAX 1024 /* that one migration may be given in all */

struct supplied {
    uint64_t *seen; /* owned; the inodes of all that were given, for none may come twice */
    size_t n_seen;
};

/* NULL for a connected stream socket of a fitting domain (UNIX; without unix_only TCP and vsock, too), or
 * what it is instead (static). Borrows fd. */
const char *socket_check(int fd, bool unix_only);

/* Whether a socket of this inode was given; a socket keeps its inode for as long as any process has it open.
 */
bool supplied_knows(const struct supplied *supplied, ino_t inode);

/*
 * Whether a descriptor from a message is a connected stream socket of a fitting domain, and not the bus's
 * own (bus_fd). ≥ 0, or negative with error set: InvalidArgs says what it is instead. Nothing more may be
 * asked of a descriptor before this: fstat(2) of a file can hang.
 */
int supplied_check(int bus_fd, int fd, bool unix_only, sd_bus_error *error);

/*
 * Takes such a socket over: a copy of fd (borrowed) that is close-on-exec and non-blocking, if it was not
 * given before, which is remembered. ≥ 0 with *ret the caller's, or negative with error set.
 */
int supplied_take(struct supplied *supplied, int fd, int *ret, sd_bus_error *error);

/* Remembers a socket; borrows fd. 0; -EEXIST when it was given before, -ENOBUFS when there were too many, or
 * another negative errno. */
int supplied_remember(struct supplied *supplied, int fd);

/* It was not taken after all, and can be given again; borrows fd. */
void supplied_forget(struct supplied *supplied, int fd);

void supplied_clear(struct supplied *supplied);
