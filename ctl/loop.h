/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What every part of vmferryctl stands on. Each verb is a story told in order: it calls, and the one event
 * loop (sd-event) turns while it waits, so that signals and children are heard at all times. Callbacks only
 * note down what happened; the story goes on where it waits.
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
    unsigned interrupts;    /* number of SIGINT, SIGTERM and SIGHUP received since they are caught */
    bool hangup;            /* one of them was SIGTERM or SIGHUP: this program ends, and QEMU need not */
    bool resized;           /* the terminal has another size */
    bool signals;           /* they are caught */
    bool one_login;         /* the verb needs several ssh to a host: they share one connection */
    bool relayed;           /* stdout carried a stream of bytes (stdio), and may be closed */
    struct master *masters; /* the shared ssh connections; only ssh/master.c uses it */
};

/* From here on Ctrl-C only counts up interrupts: for verbs that must not just stop. */
int ctl_catch_signals(struct ctl *ctl, struct trouble *trouble);

/* Runs the event loop once: waits at most so long (UINT64_MAX: for ever) for an event. -1 with a trouble. */
int ctl_turn(struct ctl *ctl, uint64_t usec, struct trouble *trouble);

/* Runs it for so long, or until Ctrl-C or another size of the terminal. */
int ctl_pause(struct ctl *ctl, uint64_t usec, struct trouble *trouble);

/* CLOCK_MONOTONIC in µs. */
uint64_t ctl_now(void);

/* Writes out what was printed to stdout so far. -1 with a trouble where it, or anything before, was lost. */
int ctl_flush(struct trouble *trouble);

/* A line on stderr for people ("Hint: …"), unless --quiet. */
void ctl_say(const struct ctl *ctl, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The same with --verbose alone. */
void ctl_step(const struct ctl *ctl, const char *format, ...) __attribute__((format(printf, 2, 3)));
