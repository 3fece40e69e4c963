/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* 'check': looks at what a migration needs, one thing after the other, and says for each what to do about it.
 */

#include "ctl/bus/tunnel.h"

enum verdict {
    VERDICT_OK,
    VERDICT_WARN, /* some migrations will not work, or not well */
    VERDICT_FAIL, /* none will */
};

struct check {
    struct ctl *ctl;
    struct side *source, *destination; /* the same where there is no HOST */
    json_object *findings;
    bool failed;
};

/* Notes it, and prints it unless --json. remedy: NULL where there is nothing to do. */
void check_found(struct check *check, enum verdict verdict, const char *name, const char *remedy,
                 const char *format, ...) __attribute__((format(printf, 5, 6)));

/* A real tunnel from the source to the destination: may it be made, does it come about, how fast is it. */
void check_tunnel(struct check *check);
