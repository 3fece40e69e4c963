/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the owner of a migration reports of it, which the tunnel cannot know: how far QEMU is, and what became
 * of the VM. Pure.
 */

#include <stdbool.h>
#include <stdint.h>

#include "common/outcome.h"

enum report_phase {
    REPORT_PHASE_NONE = 0,
    REPORT_PHASE_SETUP = 1,
    REPORT_PHASE_PRECOPY = 2,
    REPORT_PHASE_SWITCHOVER = 3,
    REPORT_PHASE_POSTCOPY = 4,
    REPORT_PHASE_PAUSED = 5,
    REPORT_PHASE_RECOVERING = 6,
    REPORT_PHASE_FINISHING = 7, /* all is carried, and the outcome to come */
    REPORT_PHASE_DISKS = 8,     /* they are copied; the memory has not begun */
    REPORT_PHASE_MAX_,
};

enum report_by {
    REPORT_BY_NOBODY = 0,
    REPORT_BY_OWNER = 1, /* on this host */
    REPORT_BY_PEER = 2,  /* the source's owner, through the tunnel */
    REPORT_BY_MAX_,
};

/* How far it is, as the owner says; 0: not told. */
struct progress {
    uint32_t phase; /* enum report_phase */
    uint32_t pass;  /* over the memory, from 1 */
    uint64_t memory_total, memory_remaining;
    uint64_t dirty_rate;                 /* bytes/s that the guest changes */
    uint64_t expected_downtime;          /* µs */
    uint64_t disk_total, disk_remaining; /* bytes */
};

struct report {
    struct progress progress;
    uint32_t fraction;  /* millionths, and one more; 0: not known */
    uint64_t rate;      /* bytes/s of the tunnel at that time */
    uint64_t remaining; /* µs; 0: not known */
    uint32_t by;        /* enum report_by: whose the outcome is */
    struct outcome outcome;
};

/* The words of the bus. NULL for a number that is none; REPORT_PHASE_NONE for a text that is none. */
const char *report_phase_text(uint32_t phase);
const char *report_by_text(uint32_t by);
enum report_phase report_phase_of(const char *text);

/* Takes what the owner says now, in place of what it said before; rate: the tunnel's. */
void report_update(struct report *report, const struct progress *progress, uint64_t rate);

/* Whether this outcome is news, and may stand in place of the one before: the own owner has the last word. */
bool report_may_set(const struct report *report, const struct outcome *outcome, enum report_by by);

/* 0 to 1, which is there only once the VM has moved; −1: not known. */
double report_fraction(const struct report *report);
