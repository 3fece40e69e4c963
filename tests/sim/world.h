/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "common/message.h"
#include "sim.h"

/* What a seed makes of a schedule. */
struct plan {
    struct message_start_relay start; /* of both, but for the role */
    uint64_t resume_timeout, window;
    bool gentle;       /* nothing happens that vmferry does not promise to bear: both sides must be done */
    bool quiet;        /* nothing goes wrong at all: nothing is interrupted */
    bool goes;         /* a broker may go for good */
    bool deserts;      /* the destination's QEMU closes connections behind its main one too early */
    bool recovers;     /* who sees that QEMU's connections were given up makes new ones */
    unsigned faults;   /* that are still to come */
    unsigned lies;     /* likewise */
    unsigned channels; /* of QEMU that are still to come */
    uint64_t size;     /* of their flows, at most */
};

extern struct plan plan;

uint64_t plan_back_total(void);

/* One schedule from its beginning to its end. */
void world_run(uint64_t seed);
