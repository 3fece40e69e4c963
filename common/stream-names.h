/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The names of a migration's streams, in one side's order. */

#include <stdint.h>
#include <string.h>

#include "common/message.h"

/* Carries libvirt's own calls, not QEMU's bytes: it has never a path, and its loss is not the migration's. */
#define STREAM_LIBVIRT "libvirt"

struct stream_names {
    uint32_t n;
    char names[MESSAGE_STREAMS_MAX][MESSAGE_STREAM_MAX];
};

/* The index of a name, or −1. */
static inline int stream_names_find(const struct stream_names *streams, const char *name)
{
    for (uint32_t i = 0; i < streams->n; i++)
        if (strcmp(streams->names[i], name) == 0)
            return (int)i;
    return -1;
}
