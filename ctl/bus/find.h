/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Finds the migration that the user means. */

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

/* Lists all migrations of the broker, oldest first. The caller frees the array. */
int find_all(struct side *side, struct found **ret, size_t *ret_n, struct trouble *trouble);

/*
 * Finds the migrations that text names: an id, ROLE/ID, or a VM. An id finds those of any user (of several,
 * the caller's). A VM's name finds only the caller's own, because another user may have given a VM the same
 * name: all unfinished ones, or else the newest finished one. Returns at least one, or a trouble that lists
 * those of other users.
 */
int find_named(struct side *side, const char *text, struct found **ret, size_t *ret_n,
               struct trouble *trouble);

/* Tells the user of migrations that others have for a VM of this name, in the role of the one at path. */
void find_say_namesakes(struct side *side, const char *vm, const char *path);

/* The same, where text must name exactly one. */
int find_one(struct side *side, const char *text, struct found *ret, struct trouble *trouble);

/*
 * Finds the one unfinished migration in this role that text names (an id, ROLE/ID, or a VM) and whose socket
 * a QEMU that runs as uid qemu may use: the caller owns the migration, or the caller is root and QEMU's user
 * owns it. A VM's name skips all others; an id of another user's migration is a trouble, and so is a name
 * with two matches. 0: there is none, 1, or -1.
 */
int find_running(struct side *side, const char *text, const char *role, uid_t qemu, struct found *ret,
                 struct trouble *trouble);
