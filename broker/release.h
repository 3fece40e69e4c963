/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Closes descriptors in threads of its own, for a close(2) can wait without end: that of a TCP socket with
 * SO_LINGER until the peer has its data, that of a file on FUSE until its daemon answers, that of a UNIX
 * socket with one of them in its queue as long as that one. What a caller, a QEMU or a peer passed to the
 * broker, or connected it to, can be any of these.
 *
 * Once release_start() was called, each close(2) of the calling thread, be it by our code or by a library,
 * hands the descriptor to these threads and returns; see close() in release.c. Closes that hang hold up one
 * thread each, and each user's some of the threads at most: what this user passes besides waits, open, and
 * holds up nobody else. Where too many wait, the process is told to end (SIGTERM), for the end of a process
 * does not linger, and the broker's next start goes on.
 *
 * A descriptor is charged to the user whom release_charge() has named; else, for a socket, to the user at its
 * other end or to the one that made it; what is left is the broker's own.
 */

#include <stdbool.h>
#include <sys/types.h>

#include "common/cleanup.h"

enum {
    RELEASE_THREADS = 16,
    RELEASE_SHARE = 4,          /* threads that one user's can hold up */
    RELEASE_WAITING_MAX = 65536 /* and not more than half of RLIMIT_NOFILE */
};

#define RELEASE_NOBODY ((uid_t)-1)

/* Starts the threads, which block all signals. The caller's thread must be the only one so far, and must
 * block SIGTERM. 0 or a negative errno, -ENOTSUP (logged): libraries do not close by our close(). */
int release_start(void);

/*
 * Takes fd, and closes it when others have closed what they hold of a pipe: barrier, its read end, is taken
 * too. They have some seconds for that. Where no thread was started, both are closed at once.
 */
void release_after(int fd, int barrier);

/* Closes *fd at once where it is a descriptor: one that was made here, and into which no other process has
 * put anything. Its close does not depend on the threads, then. */
void release_own(int *fd);

#define _cleanup_own_fd_ _cleanup_(release_own)

/* What the loop's thread does from now on it does for this user, or for RELEASE_NOBODY in particular. */
void release_charge(uid_t uid);

/* Whether all threads hang, or as many as the user may hold up who was named last: nothing more that needs
 * them should be let in. */
bool release_is_stuck(void);
