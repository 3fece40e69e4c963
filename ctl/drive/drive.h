/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A migration of a QEMU from its first command to its end: 'send --qmp' at the source alone, 'migrate' with
 * both ends in hand.
 */

#include "ctl/bus/tunnel.h"
#include "ctl/drive/peers.h"
#include "ctl/qemu/qemu.h"
#include "ctl/terminal/meter.h"

struct drive {
    struct ctl *ctl;
    const char *vm;
    bool resume; /* a paused post-copy, to begin with */
    bool found;  /* its tunnel was there already */
    /* the source */
    struct side *source;
    struct qmp *qmp;
    struct tunnel tunnel;
    struct qemu_before before;
    /* the destination; NULL and empty where it is not in our hands */
    const char *host;
    struct side *destination;
    struct qmp *destination_qmp;
    struct tunnel destination_tunnel;
    struct qemu_before destination_before;
    struct peers *peers; /* what carries the tunnel, with --ssh; NULL: it dials */
    /* how far it is */
    struct meter meter;
    struct qemu_info info;
    char state[32];   /* the VM's run state at the source, as long as it was there; "": not known */
    char arrived[32]; /* that at the destination, "": not known */
    bool begun;       /* the VM runs at the destination, in post-copy */
    bool left_out;    /* it was said that post-copy is left out */
    bool held_up;     /* it was said that Ctrl-C waits for QEMU */
    char note[160];   /* what is to be said beside the progress */
    bool asked;       /* for post-copy: from here on a cancel can lose the guest */
    bool told;        /* that it is paused */
    uint64_t since;   /* when QEMU was told to migrate or to resume */
    uint64_t tried;   /* when it was last tried to recover it */
};

/*
 * Tells QEMU to migrate (or to resume) through the tunnel, which is connected, and stays until it is over.
 * Returns the exit status, or -1 with a trouble; nothing of the migration is left then, unless the trouble
 * says so.
 */
int drive_run(struct drive *drive, struct trouble *trouble);

/* From now on this QEMU has all the time it needs, and it is shown that it takes that. */
void drive_be_patient(struct drive *drive, struct qmp *qmp);

/* Takes back what was begun: the tunnel, where it was not there before, and what QEMU was told to do
 * otherwise. */
void drive_undo(struct drive *drive);

void drive_clear(struct drive *drive);
