/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Shows progress on stderr: on a terminal one line that is drawn again and again, else a plain line every 10
 * s. */

#include "ctl/loop.h"
#include "ctl/terminal/progress.h"

struct meter {
    struct ctl *ctl;
    bool terminal, colour;
    size_t drawn; /* columns of the line that stands there; 0: none does */
    uint64_t said_at;
    char phase[32]; /* of the last plain line */
};

void meter_open(struct meter *meter, struct ctl *ctl);

void meter_update(struct meter *meter, const struct progress *progress);

/* Takes the line away, so that something else can be said. */
void meter_clear(struct meter *meter);
