/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Copies bytes between two ends, in both directions; each direction ends for itself. */

#include <sys/types.h>

/*
 * Carries what comes from in to sock, and what comes from sock to out, until both directions have ended. A
 * half-close ends one of them. An end that has closed altogether (a QEMU that has ended, a bus that was
 * stopped) ends both, after its last bytes were passed on: ssh's connection then ends with it, even though
 * nothing says so on stdin. in and out may be the same socket, or a pipe each. Closes nothing but out, where
 * that is a pipe. Once per process: its buffers are static, it makes all three non-blocking, and ignores
 * SIGPIPE.
 */
void relay_run(int in, int out, int sock);

/* For a process that only relays: closes all but the two, and lets no Ctrl-C end it. */
void relay_detach(int a, int b);

/*
 * Starts a process of its own that carries the bytes between the two, and only that, until they end, also
 * beyond the end of this program. Borrows both. 0 or a negative errno.
 */
int relay_start(int a, int b);

/* Waits for a child that ends at once. */
void relay_reap(pid_t pid);
