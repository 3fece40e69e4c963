/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Shows progress on stderr: on a terminal one line that it redraws, else a plain line every 10 seconds. */

#include "ctl/loop.h"
#include "ctl/terminal/progress.h"

struct meter {
    struct ctl *ctl;
    bool terminal, colour;
    size_t drawn; /* columns of the line that stands there; 0: none does */
    uint64_t said_at;
    char phase[32]; /* of the last plain line */
};

/* Whether this is a terminal that can redraw, and whether it is to have colours. */
bool terminal_is_smart(int fd);
bool terminal_has_colour(int fd);

void meter_open(struct meter *meter, struct ctl *ctl);

void meter_update(struct meter *meter, const struct progress *progress);

/* Removes the line, so that other text can be printed. */
void meter_clear(struct meter *meter);
