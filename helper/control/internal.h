/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "helper/carrier/carrier.h"
#include "helper/control/events.h"

struct control {
    sd_event *event;        /* borrowed */
    struct ring_pool *pool; /* borrowed */
    const bool *halted;     /* borrowed */
    const struct control_events *events;
    void *userdata;
    struct carrier *carrier; /* owned; NULL while there is none */
    struct ring in, out;
    bool corked;       /* frames wait for more to go with them */
    bool lingers;      /* only last words are still to be sent */
    unsigned silence;  /* ticks since something came */
    uint64_t pinged;   /* µs: when the ping that is not answered yet was sent; 0: none */
    uint64_t measured; /* µs: when the last one was answered; 0: none was */
};
