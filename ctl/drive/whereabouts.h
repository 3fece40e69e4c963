/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Where the VM is after a migration that did not end well: asked of both QEMUs, never concluded from one. */

#include "ctl/drive/internal.h"

#define WHEREABOUTS_MAX 640

struct whereabouts {
    char source[32], destination[32]; /* run states; "": that QEMU cannot be asked */
    char failed[160];                 /* why the destination's QEMU failed, where it stays and says so */
    bool arrived;                     /* the destination's QEMU has all of the VM */
    bool both;                        /* both ran it, and the destination's was told to stop */
    bool may_both;                    /* the destination's QEMU is not ours to ask, and may run it too */
};

/* Asks, once the source has decided whether the VM goes on there. */
void whereabouts_look(struct drive *drive, struct whereabouts *ret);

/* A sentence without its full stop: "VM 'web1' was not moved; it runs on at the source". */
void whereabouts_tell(const struct drive *drive, const struct whereabouts *whereabouts,
                      char ret[static WHEREABOUTS_MAX]);

/* The exit status: the one that is given, or that of a VM that runs twice. */
int whereabouts_status(const struct whereabouts *whereabouts, int status);

/* How a QEMU is that does not answer: "has ended (guest-shutdown)", "does not answer any more". */
void whereabouts_of_silent(const struct qmp *qmp, char ret[static 96]);
