/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* For how long libvirt lets a silent connection live. Pure. */

#include <stdint.h>

#define KEEPALIVE_DEFAULT 30 /* seconds: 5 × (5 + 1) */
#define KEEPALIVE_NEVER   UINT64_MAX

/* In seconds, by the text of libvirtd.conf or qemu.conf. */
uint64_t keepalive_read(const char *text);
