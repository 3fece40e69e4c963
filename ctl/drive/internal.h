/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How far a migration is that drive.c drives; for the files of this folder. */

#include "ctl/drive/ends.h"
#include "ctl/terminal/meter.h"

#define DRIVE_GRACE (10 * SECOND) /* for QEMU to leave 'postcopy-paused' after it was told to resume */

struct away {
    sd_event_source *timer; /* NULL: none is */
    const char *host;
    uint64_t since;
    char why[72];
};

struct drive {
    struct ends *ends; /* borrowed */
    struct meter meter;
    struct qemu_info info;
    char state[32];         /* the VM's run state at the source, as long as it was there; "": not known */
    char arrived[32];       /* that at the destination, "": not known */
    char shown[32];         /* the phase, as it was shown last */
    uint64_t printed_at;    /* the last object of --json=seq; 0: none was */
    bool resume;            /* QEMU was told to resume a paused post-copy */
    bool begun;             /* the VM runs at the destination */
    bool left_out;          /* it was said that post-copy is left out */
    bool held_up;           /* it was said that Ctrl-C waits for QEMU */
    char note[180];         /* shown beside the progress */
    struct away away;       /* the host that is connected to again; only view.c uses it */
    uint64_t sent, sent_at; /* what had arrived, and when that last changed */
    bool asked;             /* for post-copy: from here on a cancel can lose the guest */
    bool postcopy;          /* QEMU has said that it is in it: the VM is not at the source any more */
    bool told;              /* it was said that the post-copy is paused */
    uint64_t since;         /* when QEMU was told to migrate or to resume */
    uint64_t reported;      /* when the brokers were told last how far it is */
    const char *phase;      /* which they were told */
    uint64_t tried;         /* when recover_try() last tried */
    unsigned seen;          /* qmp_events() of both before the last look */
    unsigned stops;         /* qmp_stops() at the source before QEMU was told to migrate */
    struct trouble refused; /* why the destination's QEMU would not let the VM run */
    char reason[320];       /* why it could not be resumed, as it was said last */
};

/* A QEMU that is paused was told to resume a moment ago, and says so late. */
static inline bool drive_resumes(const struct drive *drive)
{
    return drive->resume && ctl_now() < drive->since + DRIVE_GRACE;
}
