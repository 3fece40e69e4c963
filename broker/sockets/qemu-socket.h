/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The UNIX sockets that QEMU and the broker meet at: directories, listeners and connections by path. A path
 * is opened without following any symbolic link (open-path.h), and used through the
 * descriptor of what was opened, so that nothing can be swapped in between.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct give;

/* Bytes that a socket of ours towards QEMU may hold, up to net.core.wmem_max: with unix(7)'s default QEMU and
 * the helper wait for each other more often. More than this does not stay in the cache. */
#define QEMU_SOCKET_BUFFER (512 * 1024)

#define QEMU_SOCKET_PATH_MAX 108 /* sun_path, its NUL included, unix(7) */

/* Errnos for paths that are not allowed, which no system call here returns by itself. */
#define EFOREIGN EREMOTE /* it belongs to another user */
#define EOUTSIDE EDOM    /* it is in none of the allowed directories */

struct socket_owner {
    uid_t uid;
    gid_t gid;  /* (gid_t)−1: leave it */
    bool group; /* the group may use it too */
    bool only;  /* no other user may, root neither */
};

/*
 * How a path given by a less privileged caller is opened: it leads to a socket of that user's, in a directory
 * of that user's, which is below one that the administrator allows, and on its file system. All zero:
 * anywhere.
 */
struct socket_scope {
    bool restricted;
    uid_t uid;      /* that must own them */
    size_t beneath; /* how many bytes of the path name the allowed directory */
};

/*
 * Makes the directory (and its parents, 0755) for one migration's sockets, for its owner alone: 0700, or 0770
 * with a group. The directory itself must not be there yet. 0 or a negative errno.
 */
int qemu_socket_make_directory(const char *path, const struct socket_owner *owner, struct give *give);

/*
 * Removes the socket at path where that is in the directory, whoever made it: what is in there is its
 * owner's, so nothing else is looked for. Then qemu_socket_remove_directory().
 */
void qemu_socket_remove_in(const char *directory, const char *path);

/* Removes the directory where it is empty. false: something else is in it, and it stays. */
bool qemu_socket_remove_directory(const char *path);

/* The same where the names are not known: first removes a few sockets with this in their names. */
bool qemu_socket_remove_leftover(const char *path, const char *part);

/*
 * A listening socket at path, 0600 (or 0660 with a group) and of its owner before any process can connect.
 * The FD, close-on-exec and non-blocking, is the caller's. -EEXIST when something is there, -ELOOP for a
 * symbolic link on the way, -EXDEV where it leads out of its scope and -EFOREIGN where that is not of the
 * scope's user; or another negative errno.
 */
int qemu_socket_listen(const char *path, const struct socket_scope *scope, const struct socket_owner *owner,
                       struct give *give);

/* Sizes a socket towards QEMU, and has it refuse descriptors; best effort. */
void qemu_socket_tune(int fd);

/* Removes what qemu_socket_listen() made. */
void qemu_socket_unlink(const char *path, const struct socket_scope *scope);

/*
 * A connection to QEMU's socket. The FD, close-on-exec and non-blocking, is the caller's. -ENOTSOCK when that
 * is no socket, -EAGAIN when too many connections wait there already, -ELOOP, -EXDEV and -EFOREIGN as above;
 * or another negative errno.
 */
int qemu_socket_connect(const char *path, const struct socket_scope *scope);

/* The same by a socket that is there already (borrowed), which is as it was where that fails. 0 or a negative
 * errno. */
int qemu_socket_connect_by(int fd, const char *path, const struct socket_scope *scope);

/*
 * Whether the process at the other end (of the listener, where we connected) is one whose connection this can
 * be: the owner's, root's or, where that may use the sockets, the group's. Borrows fd. Its uid is in
 * *ret_uid, for a message; (uid_t)−1 where it is not known.
 */
bool qemu_socket_peer_is(int fd, const struct socket_owner *owner, uid_t *ret_uid);
