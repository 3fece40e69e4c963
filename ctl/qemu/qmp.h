/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A connection to QEMU's monitor (QMP) on the event loop, here or over ssh. One command at a time. */

#include "ctl/bus/record.h"
#include "ctl/bus/side.h"

struct qmp;

/* Connects, waits for QEMU's greeting and answers it. path is at the side's host. */
int qmp_open(struct side *side, const char *path, struct qmp **ret, struct trouble *trouble);

/*
 * Runs a command. Takes arguments (NULL: none). ret: what it returned, the caller's; may be NULL. The trouble
 * says what QEMU said; qmp_is_open() tells whether it was QEMU that refused.
 */
int qmp_execute(struct qmp *qmp, const char *command, json_object *arguments, json_object **ret,
                struct trouble *trouble);

/*
 * QEMU answers nothing while it holds its lock, as in the last part of a pre-copy, which can take minutes.
 * From this call on, qmp_execute() waits for the answer as long as QEMU keeps the connection, and calls
 * on_silent every quarter of a second with how long it has waited (µs). When on_silent returns false,
 * qmp_execute() gives up, and this QEMU cannot be asked anything any more. on_silent may turn the event loop,
 * but must not ask this QEMU. NULL: back to a time limit.
 */
typedef bool (*qmp_silent_t)(struct qmp *qmp, uint64_t usec, void *userdata);
void qmp_be_patient(struct qmp *qmp, qmp_silent_t on_silent, void *userdata);

/* How long QEMU had not answered when it was given up for Ctrl-C (µs); 0: it was not. */
uint64_t qmp_silence(const struct qmp *qmp);

bool qmp_is_open(const struct qmp *qmp);

/* Whether the connection was closed at the other end: QEMU has ended, or the process that leads there. */
bool qmp_has_ended(const struct qmp *qmp);

/* The uid of QEMU, or of the process that made its socket. */
uid_t qmp_uid(const struct qmp *qmp);

bool qmp_is_at_least(const struct qmp *qmp, unsigned major, unsigned minor);
const char *qmp_version_text(const struct qmp *qmp);

/* How many events QEMU has sent of a migration, or of the VM's stopping and going on. */
unsigned qmp_events(const struct qmp *qmp);

/* How often the VM has stopped, by those events. */
unsigned qmp_stops(const struct qmp *qmp);

/* Why QEMU said that it ends ("guest-shutdown", "host-qmp-quit", …); "": it did not say so. */
const char *qmp_shutdown(const struct qmp *qmp);

/* "QEMU (/run/web1.qmp)", "QEMU (/run/web1.qmp at host2)": for messages. */
const char *qmp_name(const struct qmp *qmp);

void qmp_free(struct qmp *qmp);

static inline void qmp_freep(struct qmp **qmp)
{
    qmp_free(*qmp);
}
