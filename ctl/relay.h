/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Bytes between two ends in both directions, each of which ends for itself. */

#include <sys/types.h>

/*
 * Carries what comes from in to sock, and what comes from sock to out, until both directions have ended. in
 * and out may be the same socket, or a pipe each. Closes nothing.
 */
void relay_run(int in, int out, int sock);

/* For a process that only relays: closes all but the two, and lets no Ctrl-C end it. */
void relay_detach(int a, int b);

/* Waits for a child that ends at once. */
void relay_reap(pid_t pid);
