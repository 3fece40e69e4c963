/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What became of the VM, as the owner of its migration tells it. The tunnel cannot know that: it proves that
 * bytes were carried. The numbers are wire format, as those of error.h are.
 */

#include <stdint.h>

#define OUTCOME_HOST_MAX      64 /* bytes, as in all three the NUL included */
#define OUTCOME_RUN_STATE_MAX 32
#define OUTCOME_REASON_MAX    256

enum vf_outcome {
    VF_OUTCOME_NONE = 0,
    VF_OUTCOME_MOVED = 1,
    VF_OUTCOME_NOT_MOVED = 2, /* it is, or was, at the source */
    VF_OUTCOME_LOST = 3,      /* it is at neither side any more */
    VF_OUTCOME_UNKNOWN = 4,   /* the owner could not find out */
    VF_OUTCOME_MAX_,
};

/* In messages between processes, too: fixed width, texts printable and terminated. */
struct outcome {
    uint32_t outcome; /* enum vf_outcome */
    uint32_t reserved;
    uint64_t downtime; /* µs for which the VM stood still; 0: not told */
    uint64_t total;    /* µs that all of it took; 0: not told */
    char host[OUTCOME_HOST_MAX];
    char run_state[OUTCOME_RUN_STATE_MAX]; /* QEMU's word: "running" */
    char reason[OUTCOME_REASON_MAX];
};

/* "moved", "not-moved", "lost", "unknown"; "" for none, NULL for a number that is no outcome. */
const char *vf_outcome_to_string(uint32_t outcome);

/* VF_OUTCOME_NONE for a text that is no outcome. */
enum vf_outcome vf_outcome_from_string(const char *text);
