/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>

/*
 * Whether a QEMU of any user may receive a post-copy on this host: it needs userfaultfd(2), or its device,
 * which QEMU knows since 8.1. device: whether that counts.
 */
bool userfaultfd_is_for_all(bool device);
