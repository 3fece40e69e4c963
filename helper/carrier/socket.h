/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * recv(2) and send(2) over pieces, never blocking whatever the socket's flags are, and without SIGPIPE.
 * Borrow fd. How many bytes; 0 at EOF for socket_recv(); or a negative errno, -EAGAIN where nothing can be
 * moved now.
 */

#include <sys/types.h>
#include <sys/uio.h>

ssize_t socket_recv(int fd, struct iovec *iov, int n_iov);
ssize_t socket_send(int fd, struct iovec *iov, int n_iov);
