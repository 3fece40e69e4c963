/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The broker of one side, as its helper knows it: brings the connections that are asked for, some time later;
 * can die at any moment, and come back with nothing but the socket (SYNC).
 */

#include "common/error.h"
#include "common/message.h"
#include "kernel.h"

enum { TASKS = 64 };

struct task {
    enum message_type type; /* NEED_PEER or NEED_QEMU */
    uint32_t serial, kind;
    uint32_t channel, stream;
    uint64_t at;
};

enum voice {
    VOICE_OURS,
    VOICE_SYNCING,
    VOICE_SYNCED,
};

struct broker {
    int side;
    int fd; /* its end of the link; −1 once that is closed */
    uint64_t dead_until;
    enum voice voice;
    uint64_t cookie;
    uint64_t busy_until;
    uint64_t qemu_up_at; /* destination: its QEMU listens from then on */
    struct task tasks[TASKS];
    size_t n_tasks;
    enum message_state state; /* that the helper told last */
    bool has_ended;           /* it has told its helper to end: once */
    bool has_farewell;        /* and that was cut off from its peer then, */
    uint64_t ended_at;
    unsigned faults_left; /* when so many faults were to come */
    bool has_result;
    uint64_t result_at;
    enum vf_error error;
    char text[MESSAGE_TEXT_MAX];
};

extern struct broker brokers[2];

void broker_begin(int side);

/* Tells its helper what it knows beyond the first version of the messages; one of before does not. */
void broker_offers(struct broker *broker);

bool broker_is_due(const struct broker *broker);
void broker_turn(struct broker *broker);
uint64_t broker_next(const struct broker *broker);

static inline bool broker_is_up(const struct broker *broker)
{
    return broker->fd >= 0 && broker->dead_until <= sim.now;
}

/* What it was asked for comes within so many µs now. */
void broker_hurries(struct broker *broker, uint64_t usec);

/* Dies now, and comes back so much later; or closes its socket for good. */
void broker_dies(struct broker *broker, uint64_t usec);
void broker_goes(struct broker *broker);

/* Gives a file (or NULL) with it, which it takes. False where the helper does not take it. */
bool broker_sends(struct broker *broker, enum message_type type, union message *m, struct file *file);

/* Source: a QEMU connects. False where that cannot be told now. */
bool broker_adds_qemu(struct broker *broker, uint32_t stream, uint64_t total);

void broker_ends(struct broker *broker, enum vf_error error);
