/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * SELinux: as what a socket counts that others connect to. libvirt's QEMUs (svirt_t) may connect to such that
 * were made with the label of setsockcreatecon(3) for svirt_socket_t. It cannot be changed later.
 */

/*
 * From now on this thread's sockets get this label; "": as always. Where SELinux is off it does nothing. 0;
 * -ENOTSUP: built without libselinux; -EINVAL: the policy does not know it; or another negative errno.
 */
int socket_label_begin(const char *label);

/* From now on they are as always. Keeps errno. */
void socket_label_end(const char *label);
