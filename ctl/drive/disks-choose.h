/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Which disks go along with a VM, and to which images of the destination's QEMU. */

#include "ctl/qemu/block.h"

#define DISKS_MAX 64

struct disk_pair {
    struct block_disk near, far;
};

/*
 * By --disks=NODES, or all that can be written to and are not on storage that both hosts share, as far as
 * that shows; says which are left out. Returns how many, or -1.
 */
int disks_choose(struct side *source, struct qmp *near, struct qmp *far,
                 struct disk_pair ret[static DISKS_MAX], struct trouble *trouble);
