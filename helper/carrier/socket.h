/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* recv(2) and send(2) over pieces, non-blocking, with -errno and without SIGPIPE. */

#include <sys/types.h>
#include <sys/uio.h>

ssize_t socket_recv(int fd, struct iovec *iov, int n_iov);
ssize_t socket_send(int fd, struct iovec *iov, int n_iov);
