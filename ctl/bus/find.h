/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Which migration is meant. */

#include "ctl/bus/side.h"

enum {
    FIND_ID_MAX = 17,
    FIND_ROLE_MAX = 9,
    FIND_STATE_MAX = 16,
    FIND_PATH_MAX = 128,
};

struct found {
    char id[FIND_ID_MAX], role[FIND_ROLE_MAX], state[FIND_STATE_MAX], path[FIND_PATH_MAX];
    char vm[256];
    uint32_t uid;
};

/* All that there are, oldest first; the array is the caller's. */
int find_all(struct side *side, struct found **ret, size_t *ret_n, struct trouble *trouble);

/*
 * The migrations that text names: an id, ROLE/ID, or a VM. An id names anybody's; a VM's name only those that
 * the caller owns, for another user may have given the same name: those that are not finished, or else the
 * newest one. At least one, or a trouble, which lists those of other users.
 */
int find_named(struct side *side, const char *text, struct found **ret, size_t *ret_n,
               struct trouble *trouble);

/* The same where only one can be meant. */
int find_one(struct side *side, const char *text, struct found *ret, struct trouble *trouble);

/*
 * The one in this role that text names (an id, ROLE/ID, or a VM), that is not finished, and whose socket a
 * QEMU that runs as qemu may be told to use: the caller owns it, or, where the caller is root, QEMU's user
 * does. A VM's name finds no other; another one's id is a trouble, as are two that it can be. 0: there is
 * none, 1, or -1.
 */
int find_running(struct side *side, const char *text, const char *role, uid_t qemu, struct found *ret,
                 struct trouble *trouble);
