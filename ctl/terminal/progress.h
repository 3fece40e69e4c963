/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The line that says how far a migration is. Pure. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PROGRESS_LINE_MAX 1024 /* bytes, colours and the NUL included */

struct progress {
    const char *vm;
    const char *phase;  /* "pre-copy", "interrupted", … */
    const char *note;   /* what is to be said in addition; NULL: nothing */
    double fraction;    /* 0 to 1; less than 0: not known */
    bool done;          /* only then it is 100 % */
    uint64_t bytes;     /* taken from QEMU */
    uint64_t rate;      /* bytes/s */
    bool has_memory;    /* QEMU was asked, so that there are: */
    uint64_t dirty;     /* bytes/s that the guest changes; 0: not known */
    uint64_t remaining; /* bytes of memory */
    uint32_t reconnects;
};

/*
 * Writes the line in at most columns of a terminal (0: however long it is); what matters less is left out
 * first. colour: with the phase in one. Returns how many columns it takes.
 */
size_t progress_format(const struct progress *progress, size_t columns, bool colour,
                       char ret[static PROGRESS_LINE_MAX]);
