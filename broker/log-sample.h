/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Which of the events that others can bring about at will are logged: some in each interval, and then a line
 * that says how many more there were. So a flood of them does not become one of lines, and what comes after
 * it is seen again.
 */

#include <stdbool.h>
#include <stdint.h>

enum {
    LOG_SAMPLE_BURST = 16,          /* lines in an interval */
    LOG_SAMPLE_INTERVAL = 30000000, /* µs */
    LOG_SAMPLE_KEYS = 64,
    LOG_SAMPLE_KEY_MAX = 64,
    LOG_SAMPLE_ALL = 128, /* lines in an interval, of all keys */
};

struct log_sample {
    uint64_t begin; /* µs, CLOCK_MONOTONIC; of the interval */
    uint32_t n;     /* lines in it */
    uint32_t suppressed;
};

/* All zero: nothing has come yet. Whether this event is to be logged. what: of which kind it is, in the
 * plural. */
bool log_sample(struct log_sample *sample, const char *what);

/* The same at that time; *ret_suppressed: how many were not logged in the interval that is over. Pure. */
bool log_sample_at(struct log_sample *sample, uint32_t burst, uint64_t now, uint32_t *ret_suppressed);

/* Several, one for each user or host, so that none can hide another one's. */
struct log_samples {
    struct {
        char key[LOG_SAMPLE_KEY_MAX]; /* "": free */
        uint64_t last;                /* µs; the one that came last the longest ago makes room */
        struct log_sample sample;
    } each[LOG_SAMPLE_KEYS];
    struct log_sample all;
};

/* All zero: nothing has come yet. key: who brought it about. */
bool log_sample_of(struct log_samples *samples, const char *key, const char *what);

bool log_samples_at(struct log_samples *samples, const char *key, uint64_t now, uint32_t *ret_suppressed,
                    uint32_t *ret_suppressed_of_all);
