/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The connections of both QEMUs. Each sends a flow of bytes that says of itself whose it is and how long, and
 * each knows what it must receive: a byte that is not the next one of the flow is a fault where it is
 * delivered.
 */

#include "kernel.h"

enum { QEMUS = 64 };

struct qemu {
    struct conn *conn; /* its end 1; NULL once it has closed that */
    int side;
    uint32_t stream;
    uint32_t id;
    uint64_t total, written; /* that it sends */
    uint64_t taken;          /* of these by its helper */
    uint64_t received;       /* that its helper delivered */
    uint8_t head[8];         /* the first of these */
    struct qemu *mate;       /* whose flow comes here; NULL before that is known */
    bool given;              /* to its helper */
    bool shut;               /* it has said its end */
    bool told_end;           /* it was told the other's */
    bool dropped;            /* its helper closed the connection, and not because the migration ended */
    bool left;               /* its helper has closed the connection */
    bool hasty;              /* it closes once it has all, and waits for no end */
    uint64_t rest;           /* it closes once this is left to read; NEVER: it waits for the end */
    uint64_t wake_at, die_at;
    uint64_t window; /* bytes that may be taken and not delivered; 0: any */
};

struct qemus {
    struct qemu all[QEMUS];
    size_t n;
    bool end; /* a migration ends in this call */
};

extern struct qemus qemus;

void qemus_begin(void);

/* A new connection of this side's, which sends so much; returns it with the helper's end, a file. */
struct qemu *qemu_new(int side, uint32_t stream, uint64_t total, struct file **ret_file);

bool qemu_is_due(const struct qemu *qemu);
void qemu_turn(struct qemu *qemu);
uint64_t qemu_next(const struct qemu *qemu);

/* It closes now, whatever is under way. */
void qemu_dies(struct qemu *qemu);

/* Both flows of it and its mate are delivered, and both were told the end. */
bool qemu_is_complete(const struct qemu *qemu);

/* Bytes went through it, either way. */
bool qemu_has_carried(const struct qemu *qemu);

/* For who looks for a fault: what there is of all. */
void qemus_tell(void);

/* ---- What its helper does to it ---- */

void qemu_receives(struct qemu *qemu, uint64_t offset, const void *data, size_t size);
void qemu_is_read(struct qemu *qemu, uint64_t taken);
void qemu_is_told_end(struct qemu *qemu, uint64_t offset);
void qemu_is_closed(struct qemu *qemu);
void qemus_end(bool end);
