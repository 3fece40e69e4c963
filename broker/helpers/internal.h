/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the files of this folder see of a link. */

#include <stdbool.h>
#include <sys/queue.h>
#include <systemd/sd-event.h>

#include "broker/helpers/process.h"

/* It only goes on, and may leave some out. */
enum link_state {
    LINK_STARTING, /* its READY has yet to come */
    LINK_READY,
    LINK_DRAINING, /* its process has ended, and its last messages are being read */
    LINK_CLOSED,   /* its socket is closed; its process may have to end yet */
};

struct helper_link {
    TAILQ_ENTRY(helper_link) entry;
    struct helper_links *links; /* borrowed */
    int fd;                     /* owned; −1 at its end */
    int ended; /* owned; that socket from its end on, for the FD store may have it yet; −1 */
    struct helper_process process;
    unsigned phase; /* in which it is; what it may say hangs on that */
    unsigned role;  /* the phase after READY; 0: not told yet, may say nothing */
    enum link_state state;
    bool strange; /* started by systemd, and we have yet to learn which process it is */
    char why[128];
    sd_event_source *io, *timer;
    const struct helper_handlers *handlers; /* NULL: it has no owner any more, and is kept until its exit */
    void *userdata;
};
