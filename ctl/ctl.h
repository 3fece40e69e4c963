/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * vmferryctl. Every verb is a story told in order: it calls, and the one event loop (sd-event) turns while it
 * waits, so that signals and children are heard at all times. Nothing runs in callbacks but what they note
 * down.
 */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#include "ctl/arguments.h"
#include "ctl/trouble.h"

#define SECOND ((uint64_t)1000000) /* µs */

struct ctl {
    struct arguments arguments;
    sd_event *event;
    unsigned interrupts;    /* how often somebody has said that it should end (Ctrl-C, SIGTERM), where that is
                               caught */
    bool resized;           /* the terminal has another size */
    bool signals;           /* they are caught */
    struct master *masters; /* what ssh connections are shared (master.h) */
};

/* The whole program: returns its exit status. */
int ctl_run(int argc, char **argv);

/* From here on Ctrl-C only counts up interrupts: for verbs that must not just stop. */
int ctl_catch_signals(struct ctl *ctl, struct trouble *trouble);

/* Waits for something to happen, at most so long (UINT64_MAX: for ever), and lets it. -1 with a trouble. */
int ctl_turn(struct ctl *ctl, uint64_t usec, struct trouble *trouble);

/* CLOCK_MONOTONIC in µs. */
uint64_t ctl_now(void);

/* Writes out what was printed to stdout so far. -1 with a trouble where it, or anything before, was lost. */
int ctl_flush(struct trouble *trouble);

/* A line on stderr for people ("Hint: …"), unless --quiet. */
void ctl_say(const struct ctl *ctl, const char *format, ...) __attribute__((format(printf, 2, 3)));
