/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Runs a helper on its socket to the broker until its migration (or its time as the gate) is over. Takes fd,
 * a connected SOCK_SEQPACKET socket. Locks itself in first.
 *
 * on_locked, where given, is called once in the sandbox with the event loop; it is how the tests' rogue
 * helper gets to try what it may not. Returns the process' exit status.
 */

#include <systemd/sd-event.h>

int helper_run(int fd, void (*on_locked)(sd_event *event));
