/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the broker says to the giver, and what it hears: one fixed-width struct a SEQPACKET datagram. With the
 * request comes one descriptor, of the socket or directory that is to be given away; O_PATH is enough.
 */

#include <stdint.h>

#define GIVE_VERSION 1

struct give_request {
    uint32_t version;
    uint32_t uid; /* the owner that it gets */
    uint32_t gid; /* −1: as it is */
};

struct give_reply {
    int32_t error; /* 0, or a negative errno; -EPERM: it is nothing that may be given away */
};
