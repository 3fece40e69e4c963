/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* One helper: its session, its loop, its workers, and its end of the link. */

#include <pthread.h>
#include <systemd/sd-event.h>

#include "common/message.h"
#include "common/stats.h"
#include "helper/carrier/worker.h"
#include "helper/link.h"
#include "helper/session/internal.h"
#include "helper/session/session.h"
#include "kernel.h"

struct side {
    sd_event *event; /* NULL once the helper has ended */
    struct link link;
    struct channel_of_link ends; /* the link's two queues */
    struct workers workers;
    bool at_work[WORKERS_MAX]; /* its worker has its lock, and goes on soon */
    struct session *session;
    struct stats page;
    uint64_t frozen_until;
};

extern struct side sides[2];

/* False where it fails, which then is what was to fail. */
bool side_start(int which, const struct message_start_relay *start, unsigned n_workers);

/* Things that are due. */
unsigned side_due(int which);

/* Does one of them. */
void side_turn(int which);

uint64_t side_next(int which);

/* The helper ends where it has said so. */
bool side_leaves(int which);

/* It knows that it has no control connection, but has had one. */
bool side_is_cut_off(int which);

/* For calls.c */
struct stats *side_page(int which);
bool side_worker_is_at_work(const pthread_mutex_t *lock);
