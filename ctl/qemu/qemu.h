/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What QEMU is told about a migration, and what it says of it. */

#include "ctl/qemu/qmp.h"

enum qemu_phase {
    QEMU_NONE,     /* it has not migrated yet */
    QEMU_PRECOPY,  /* setting up included: the VM is at the source */
    QEMU_POSTCOPY, /* the VM is, or will be in a moment, at the destination */
    QEMU_PAUSED,   /* post-copy lost its connection, and can be resumed */
    QEMU_DONE,
    QEMU_FAILED,
    QEMU_CANCELLED,
};

struct qemu_info {
    enum qemu_phase phase;
    char status[32];                        /* in QEMU's words */
    char error[256];                        /* its reason; "" */
    uint64_t total, remaining, transferred; /* bytes of memory */
    uint64_t dirty;                         /* bytes/s */
    uint64_t passes;                        /* over the memory, the one under way included */
    uint64_t total_msec, downtime_msec;     /* once it is done */
};

int qemu_query(struct qmp *qmp, struct qemu_info *ret, struct trouble *trouble);

/* Of a source that is done: asks again until it knows how long that took, for at most half a second. */
void qemu_query_times(struct qmp *qmp, struct qemu_info *info);

/*
 * For how long the VM stood still. QEMU 7.2 takes a post-copy's downtime below 1 ms for none, and then says
 * for how long its clock has run, which is longer than all of the migration. That is rounded up to 1 ms, for
 * 0 is what nobody knows.
 */
uint64_t qemu_downtime(uint64_t downtime_msec, uint64_t total_msec);

/* Pure: what query-migrate returned, whatever it holds. */
void qemu_read_info(json_object *object, struct qemu_info *ret);

/* "running", "inmigrate", …; as query-status has it. */
int qemu_run_state(struct qmp *qmp, char ret[static 32], struct trouble *trouble);

/* Whether the VM of this QEMU can be sent, or received, now; with resume: whether it is paused in post-copy.
 */
int qemu_check_source(struct qmp *qmp, const char *vm, bool resume, struct trouble *trouble);
int qemu_check_destination(struct qmp *qmp, const char *vm, bool resume, struct trouble *trouble);

/* What to do about an error of QEMU's that says that it may not use a socket; "" for others. */
const char *qemu_hint_at_owner(const char *error);

/* migrate, migrate-incoming, migrate-recover with the path of a UNIX socket. */
int qemu_migrate(struct qmp *qmp, const char *socket, bool resume, struct trouble *trouble);
int qemu_listen(struct qmp *qmp, const char *socket, bool recover, struct trouble *trouble);
