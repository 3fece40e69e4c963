/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A SEQPACKET connection to a socket of systemd's, which starts a unit for it (vmferry-helper.socket,
 * vmferry-giver.socket), with what helper_process_identify() needs. The FD, close-on-exec and non-blocking,
 * is the caller's; or a negative errno: -EAGAIN when too many connections wait there already.
 */
int connect_unit(const char *path);
