/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * QEMU's migration capabilities and parameters. They belong to a process that outlives vmferryctl, and other
 * programs leave theirs in it: so each that changes the stream or the hand-over is set, on or off, as this
 * migration needs it, and set back in the end.
 */

#include "ctl/qemu/qmp.h"

/* What a QEMU has, as it says; or what it had before it was told otherwise. NULL: not known, or unchanged. */
struct settings {
    json_object *capabilities, *parameters;
};

enum settings_end {
    SETTINGS_SOURCE,
    SETTINGS_DESTINATION,      /* whose source another vmferryctl drives */
    SETTINGS_HELD_DESTINATION, /* which starts the VM when it is told to */
};

int settings_read(struct qmp *qmp, struct settings *ret, struct trouble *trouble);

/* Pure: what of both ends cannot be made equal, as a trouble that names it. */
int settings_compare(const struct arguments *arguments, const struct settings *source,
                     const struct settings *destination, struct trouble *trouble);

/*
 * Sets what the options ask for. now: what it has. source: what the source has, and what the destination has
 * to follow; NULL where that is not known, or for the source. before: what settings_restore() sets back;
 * nothing is changed on failure.
 */
int settings_apply(struct qmp *qmp, const struct arguments *arguments, enum settings_end end,
                   const struct settings *now, const struct settings *source, struct settings *before,
                   struct trouble *trouble);

/* settings_read() and settings_apply() of one end whose other end is not known. */
int settings_prepare(struct qmp *qmp, const struct arguments *arguments, enum settings_end end,
                     struct settings *before, struct trouble *trouble);

/* Sets them back, and clears before. What cannot be set is left. */
void settings_restore(struct qmp *qmp, struct settings *before);
void settings_clear(struct settings *settings);
