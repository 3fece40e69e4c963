/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A directory for a socket that others than this user must not reach: BASE/vmferryctl-KIND-XXXXXX, mode 0700.
 * The process that made it holds a lock on it (flock(2)), which ends with the process however it ends: what a
 * killed vmferryctl has left is found by that, and removed by the next one that makes such a directory.
 */

enum { PRIVATE_DIRECTORY_MAX = 64 }; /* a name in it must fit the path of a socket */

struct private_directory {
    char path[PRIVATE_DIRECTORY_MAX]; /* "": there is none, and nothing else is valid */
    int lock;                         /* the directory itself, open and locked; owned */
};

/*
 * Makes one, after those of this user, kind and base are removed whose process is gone. base: absolute. 0;
 * -ENAMETOOLONG, or another negative errno, and then *ret is none.
 */
int private_directory_make(const char *base, const char *kind, struct private_directory *ret);

/* Removes it, with the files in it, and makes *directory none. None: nothing. */
void private_directory_remove(struct private_directory *directory);
