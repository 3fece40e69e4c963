/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* An outgoing migration's sockets, to which its QEMU connects. */

#include "broker/migration/stream.h"

/* ≥ 0, or negative with error set. */
int stream_listen(struct stream *stream, sd_bus_error *error);

/* Accepts on the listener that there is. 0 or a negative errno. */
int stream_accept(struct stream *stream);
