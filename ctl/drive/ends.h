/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The two ends of a migration that vmferryctl drives, and the tunnel between them: what the verbs open. */

#include "ctl/bus/tunnel.h"
#include "ctl/drive/disks.h"
#include "ctl/drive/peers.h"
#include "ctl/qemu/qemu.h"
#include "ctl/qemu/settings.h"

struct ends {
    struct ctl *ctl;
    const char *vm;
    bool resume;   /* a paused post-copy, to begin with */
    bool found;    /* its tunnel was there already */
    bool taken;    /* QEMU migrates already: it is only followed */
    bool reported; /* an object that says what it came to was printed */
    bool left;     /* the migration goes on without this program, or waits to be resumed */
    bool held;     /* the destination's QEMU was told not to start the VM by itself */
    /* the source */
    struct side *source;
    struct qmp *qmp;
    struct tunnel tunnel;
    struct settings before;
    /* the destination; NULL and empty for 'send', which has the source alone */
    const char *host;
    struct side *destination;
    struct qmp *destination_qmp;
    struct tunnel destination_tunnel;
    struct settings destination_before;
    struct disks *disks; /* those that go along; NULL: none */
    struct peers *peers; /* what carries the tunnel, with --ssh; NULL: the source's helper dials */
};

/* Opens the tunnel, or with resume finds that of the migration, if both ends still have it. */
int ends_open_tunnel(struct ends *ends, struct trouble *trouble);

/* Another one, for a post-copy that is paused, in place of one that has finished. */
int ends_renew_tunnel(struct ends *ends, struct trouble *trouble);

/* Tells the destination's QEMU, whose side of a post-copy is paused, to listen again. Its tunnel must be
 * there. */
int ends_listen_again(const struct ends *ends, struct trouble *trouble);

/* Takes back what was begun: the tunnel, unless it was there before, and what QEMU was told to change. */
void ends_undo(struct ends *ends);

void ends_clear(struct ends *ends);
