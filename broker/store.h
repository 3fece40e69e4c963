/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The FD store of the service manager, sd_pid_notify_with_fds(3): what is put there comes back when the
 * broker is started again, after a restart, a crash or an upgrade; `systemctl stop` empties it (systemd 252).
 * The manager takes what a dead broker had sent before it looks at its death, so what was put is kept,
 * whatever happens next. It polls none of the descriptors (FDPOLL=0): one whose other end is closed may still
 * hold what that had said. Without a service manager nothing is stored.
 *
 * A name is that of one descriptor.
 */

#include <stdbool.h>
#include <stddef.h>

#define STORE_MAX      4096 /* descriptors: FileDescriptorStoreMax= of vmferryd.service */
#define STORE_NAME_MAX 48   /* bytes of a name, its NUL included */

struct store;

/* Takes over what was stored before. 0 or a negative errno. */
int store_new(struct store **ret);
struct store *store_free(struct store *store);

/* Whether there is one. */
bool store_active(const struct store *store);

/* From here on nothing changes any more: the broker leaves, and its place is as it should be found. */
void store_freeze(struct store *store);

/* store_freeze() was called, and there is a store: what is in it stays, and so does all that belongs to it.
 */
bool store_frozen(const struct store *store);

/* Whether so many more fit: the service manager closes what does not fit, and does not say so. */
bool store_has_room(const struct store *store, size_t n);

/*
 * Borrows fd; leaves room for so many others. Whether it is stored now. Where it cannot be, logs so: what it
 * belongs to does not outlive this broker.
 */
bool store_put(struct store *store, const char *name, int fd, size_t leave);

/*
 * Borrows fd, a descriptor of what is removed; −1 where nothing but our own memory is there. The manager's
 * close of it is never the last, for it can wait without end (release.h): what other processes connect to or
 * write into may hold descriptors of theirs.
 */
void store_remove(struct store *store, const char *name, int fd);

/* After a start: the descriptor of this name, the caller's, which is still stored too; −1 when there is none.
 */
int store_take(struct store *store, const char *name);

/* The names that were not taken, one after the other; NULL at the end. previous: NULL, or what was returned
 * last. */
const char *store_next(const struct store *store, const char *previous);

/* Closes and removes what was not taken. */
void store_drop_rest(struct store *store);
