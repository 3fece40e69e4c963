/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Has the VM arrived at the destination, and does it run there if it ran before? Needs the QEMU there in
 * hand. */

#include "ctl/drive/internal.h"

enum arrival {
    ARRIVAL_DONE,
    ARRIVAL_FAILED,
    ARRIVAL_UNKNOWN, /* its QEMU cannot be asked, or Ctrl-C came before it said so */
};

/* Waits until QEMU there says what it came to, and has started the VM; fills in drive->arrived. */
enum arrival arrival_wait(struct drive *drive);

/* Of a VM that is there: the same run state as before, or a trouble that says what to do. 0 or -1. */
int arrival_settle(struct drive *drive, struct trouble *trouble);
