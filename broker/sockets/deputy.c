/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/sockets/deputy.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool deputy_is_restricted(uid_t uid)
{
    return uid != 0 && uid != geteuid();
}

/* An allowed directory with the uid in it; false where that is too long for any socket. */
static bool expand(const char *text, uid_t uid, char ret[static QEMU_SOCKET_PATH_MAX])
{
    size_t n = 0;

    for (const char *p = text; *p; p++) {
        int r = p[0] == '%' ? snprintf(ret + n, QEMU_SOCKET_PATH_MAX - n, "%u", uid)
                            : snprintf(ret + n, QEMU_SOCKET_PATH_MAX - n, "%c", *p);

        n += (size_t)r;
        if (n >= QEMU_SOCKET_PATH_MAX)
            return false;
        p += p[0] == '%'; /* U */
    }
    return true;
}

int deputy_scope(const struct config *config, uid_t uid, const char *path, struct socket_scope *ret)
{
    char directory[QEMU_SOCKET_PATH_MAX];

    *ret = (struct socket_scope){0};
    if (!deputy_is_restricted(uid))
        return 1;
    for (size_t i = 0; i < config->allowed.n; i++) {
        size_t n;

        if (!expand(config->allowed.items[i], uid, directory))
            continue;
        n = strcmp(directory, "/") == 0 ? 0 : strlen(directory);
        if (strncmp(path, directory, n) == 0 && path[n] == '/') {
            *ret = (struct socket_scope){.restricted = true, .uid = uid, .beneath = n};
            return 0;
        }
    }
    return -EOUTSIDE;
}

const char *deputy_why(int r)
{
    switch (r) {
    case -ELOOP:
        return "a symbolic link is on the way. Give the path without links.";
    case -EXDEV:
        return "it leads out of the allowed directory, or over a mount point in it (AllowedDirectories=).";
    case -EFOREIGN:
        return "it, or the directory that it is in, does not belong to the caller.";
    case -EOUTSIDE:
        return "it is in none of the directories where a caller other than root can name sockets "
               "(AllowedDirectories=).";
    default:
        return NULL;
    }
}
