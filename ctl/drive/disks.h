/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * --disks: the VM's disks go with it. Each is mirrored to the destination's image over the stream "disks"
 * before its memory goes, and until the VM stands still for the hand-over: QEMU waits there
 * (pause-before-switchover), the mirrors end with source and copy equal, the destination gives its NBD server
 * up, and only then QEMU goes on. Up to that moment the source's images are what they would be without a
 * migration.
 */

#include "ctl/bus/tunnel.h"
#include "ctl/qemu/block.h"

struct disks;

/*
 * Finds the disks that are to go and their counterparts at the destination. Without a list in the options
 * these are all that can be written to and are not on storage that both hosts share, as far as that shows;
 * what is left out is said.
 */
int disks_find(struct ctl *ctl, struct side *source, struct qmp *near, struct qmp *far, struct disks **ret,
               struct trouble *trouble);

/*
 * Those whose mirrors a vmferryctl began that has ended, for the one that takes its migration over, and what
 * disks_finish() left where that one was ended in it, or before it told QEMU to go on. *ret: NULL: none.
 */
int disks_take_over(struct ctl *ctl, struct qmp *near, struct qmp *far, struct disks **ret,
                    struct trouble *trouble);

/* How many go. */
unsigned disks_count(const struct disks *disks);

/* Mirrors them through the connected tunnel, and shows how far that is, until all is copied. */
int disks_mirror(struct disks *disks, const struct tunnel *source, const struct tunnel *destination,
                 struct trouble *trouble);

/* Fails where a mirror has. */
int disks_check(struct disks *disks, struct trouble *trouble);

/* The VM stands still, QEMU is in 'pre-switchover': ends the mirrors and the server. */
int disks_finish(struct disks *disks, struct trouble *trouble);

/* Whether disks_finish() has done its work: until then a cancel takes everything back. NULL: yes. */
bool disks_are_over(const struct disks *disks);

/* Takes back what was begun, as far as there is anything. */
void disks_undo(struct disks *disks);

/* disks may be NULL. */
void disks_free(struct disks *disks);
