/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The broker as a service: it tells systemd its state, and ends when it has nothing to do, for the bus starts
 * it again with the next call. It knows neither migrations nor calls: it asks its owner about them.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

/* The exit status of a broker that had nothing to do, so that systemd does not start it again by itself. */
#define EXIT_IDLE 75

/* What the owner is asked. */
struct lifecycle_ops {
    bool (*needed)(void *userdata);                          /* there are migrations, or calls wait */
    bool (*answering)(void *userdata);                       /* calls wait for their answers */
    bool (*running)(void *userdata);                         /* migrations run: STATUS= changes by itself */
    void (*status)(void *userdata, char *text, size_t size); /* what STATUS= says */
};

struct lifecycle {
    sd_event *event;                 /* borrowed */
    sd_bus *bus;                     /* borrowed */
    const char *name;                /* the broker's on the bus */
    const struct lifecycle_ops *ops; /* borrowed */
    void *userdata;
    /* The rest is lifecycle.c's. */
    uint64_t idle_timeout; /* µs; 0: never ends by itself */
    uint64_t last_call;    /* µs, CLOCK_MONOTONIC */
    sd_event_source *idle, *status;
    sd_event_source *leave, *unanswered; /* once its name is gone, while calls wait */
    char said[160];                      /* the last STATUS= */
};

/* When everything is set up: READY=1, the watchdog, and the timers. 0 or a negative errno. */
int lifecycle_start(struct lifecycle *lifecycle, uint64_t idle_timeout);

/* Another time-out, counted from the last call. 0 or a negative errno. */
int lifecycle_set_idle_timeout(struct lifecycle *lifecycle, uint64_t idle_timeout);

/* When the loop has ended. */
void lifecycle_stop(struct lifecycle *lifecycle);
