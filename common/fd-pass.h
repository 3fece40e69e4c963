/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One datagram with its FDs over a SOCK_SEQPACKET socket (SCM_RIGHTS, see unix(7) and cmsg(3)).
 * What arrives is close-on-exec from birth; a truncated message is an error and leaves no FD open.
 */

#include <stddef.h>
#include <sys/types.h>

#define FD_PASS_MAX 1 /* no message of ours carries more */

/*
 * Sends one datagram, never blocks. Borrows fds. 0, or a negative errno: -EAGAIN when the receiver's queue
 * is full, -EPIPE/-ECONNRESET when it is gone, -ETOOMANYREFS when too many FDs are in flight.
 */
int fd_pass_send(int sock, const void *data, size_t size, const int *fds, size_t n_fds);

/*
 * Receives one datagram, never blocks; flags: 0 or MSG_PEEK. On success returns its size (0 = the other side
 * is gone) and gives the caller the FDs in ret_fds[0..*ret_n_fds). Negative errno: -EAGAIN when there is
 * none; -EBADMSG when it was longer than size, carried more than FD_PASS_MAX FDs or other control data;
 * -EMFILE when this process could not have its FD, for RLIMIT_NOFILE is reached (or a security module forbids
 * it): then what did arrive is closed.
 */
ssize_t fd_pass_recv(int sock, int flags, void *data, size_t size, int ret_fds[static FD_PASS_MAX],
                     size_t *ret_n_fds);

/*
 * Has a UNIX socket take no descriptors any more: sending it one fails with EPERM. Nothing happens to other
 * sockets, and before Linux 6.16.
 */
void socket_refuse_descriptors(int sock);
