/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The process behind a helper's socket: a child of the broker's, or one that systemd has started because the
 * broker connected to vmferry-helper.socket. Of the latter the broker knows the pid by what the kernel says
 * of the sender of its first message (SCM_CREDENTIALS: the credentials of the connection itself are those of
 * PID 1, which accepted it), and the unit by what systemd says of that pid. A helper claims neither.
 */

#include <stdbool.h>
#include <systemd/sd-bus.h>
#include <systemd/sd-event.h>

#define HELPER_UNIT_MAX 256
#define HELPER_LINE_MAX 256 /* bytes, the NUL included; longer lines of a child are split */

struct helper_process {
    sd_event *event; /* borrowed */
    bool child;
    bool exited;             /* it is known to have ended */
    sd_event_source *exit;   /* of the child; or of the pidfd; NULL: not known, or not any more */
    sd_bus *bus;             /* borrowed; NULL: systemd cannot be asked */
    sd_bus_slot *slot;       /* of that question */
    sd_event_source *errors; /* a child's stderr, a pipe; owns its end */
    char line[HELPER_LINE_MAX];
    size_t n_line;
    unsigned n_lines; /* that were logged */
    char unit[HELPER_UNIT_MAX];
    char why[96]; /* how it ended, the end of a sentence; "" where that is not known */
    void (*on_exit)(void *userdata);
    void (*on_unit)(void *userdata); /* its unit is known now */
    void *userdata;
};

/* Starts a child with fd as its descriptor 3; borrows fd. process: with event, the two callbacks and userdata
 * set, and at its place until helper_process_clear(). What the child writes to stderr is logged, up to 100
 * lines. 0 or a negative errno: then there is no process. */
int helper_process_fork(struct helper_process *process, const char *path, int fd);

/*
 * Finds out which process sent the first message that waits on this socket of connect_unit(), without taking
 * the message.
 */
void helper_process_identify(struct helper_process *process, int fd);

/* SIGKILL. For what systemd has started: by systemd, once the unit is known. */
void helper_process_kill(struct helper_process *process);

/* Stops watching and logging. Does not end the process, and a child that has not exited yet is not reaped by
 * it.
 */
void helper_process_clear(struct helper_process *process);
