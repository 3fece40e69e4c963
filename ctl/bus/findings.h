/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What 'check' has found so far, of which hosts. */

#include "ctl/bus/record.h"

enum verdict {
    VERDICT_OK,
    VERDICT_WARN, /* some migrations will not work, or not well */
    VERDICT_FAIL, /* none will */
};

struct check {
    struct ctl *ctl;
    struct side *source, *destination; /* the same where there is no HOST */
    unsigned long libvirt_qemu;        /* the version of libvirt's QEMU at the destination; 0: none */
    json_object *findings;
    bool failed;
};

/* Notes it, and prints it unless --json. remedy: NULL where there is nothing to do. */
void check_found(struct check *check, enum verdict verdict, const char *name, const char *remedy,
                 const char *format, ...) __attribute__((format(printf, 5, 6)));
