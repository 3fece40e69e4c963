/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>

/*
 * openat(2), close-on-exec, through no symbolic link, not even a last one: -ELOOP. With beneath, the path
 * stays below at, by name and by mount: else -EXDEV. The FD is the caller's; or a negative errno.
 *
 * It opens part by part. openat2(2) would do the same, but no seccomp filter can look into its arguments:
 * where setuid files are forbidden (RestrictSUIDSGID=), it is forbidden as a whole.
 */
int open_path(int at, const char *path, int flags, bool beneath);
