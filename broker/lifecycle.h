/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The broker as a service: what it tells systemd of itself, and that it ends when nobody needs it, since the
 * bus starts it again with the next call.
 */

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

struct manager;

/* The exit status of a broker that had nothing to do, so that systemd does not start it again by itself. */
#define EXIT_IDLE 75

struct lifecycle {
    uint64_t idle_timeout; /* µs; 0: stays for ever */
    uint64_t last_call;    /* µs, CLOCK_MONOTONIC */
    sd_event_source *idle, *status;
    sd_event_source *leave, *unanswered; /* once its name is gone, while calls wait */
    char said[160];                      /* the last STATUS= */
};

/* When everything is set up: READY=1, the watchdog, and the timers. 0 or a negative errno. */
int lifecycle_start(struct manager *manager);

/* When the loop has ended. */
void lifecycle_stop(struct manager *manager);
