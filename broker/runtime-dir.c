/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/runtime-dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "broker/log.h"
#include "broker/migration/options.h"
#include "broker/sockets/qemu-socket.h"
#include "common/cleanup.h"

/* As mkdir --parents, so that a first start needs nothing to be there. */
static int make(const char *path)
{
    char part[PATH_MAX];

    for (const char *slash = strchr(path + 1, '/');; slash = strchr(slash + 1, '/')) {
        size_t n = slash ? (size_t)(slash - path) : strlen(path);

        if (n >= sizeof(part))
            return -ENAMETOOLONG;
        memcpy(part, path, n);
        part[n] = '\0';
        if (mkdir(part, 0755) < 0 && errno != EEXIST)
            return -errno;
        if (!slash)
            return 0;
    }
}

/* A child that a broker which was just killed had forked, and that was not a helper yet, holds it a moment
 * longer. */
static int lock_soon(int fd)
{
    const struct timespec pause = {.tv_nsec = 20000000};
    int r = -EWOULDBLOCK;

    for (int i = 0; i < 100 && r == -EWOULDBLOCK; i++) {
        if (i > 0)
            nanosleep(&pause, NULL);
        r = flock(fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
    }
    return r;
}

int runtime_dir_take(const char *path)
{
    _cleanup_fd_ int lock = -1;
    char name[PATH_MAX];
    int r = make(path);

    if (r >= 0) {
        snprintf(name, sizeof(name), "%s/lock", path);
        lock = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        r = lock < 0 ? -errno : lock_soon(lock);
    }
    if (r < 0) {
        log_start_failed("Cannot take the runtime directory %s: %s. %s", path, strerror(-r),
                         r == -EWOULDBLOCK ? "Another vmferryd has it; see --runtime-dir=."
                                           : "See --runtime-dir=.");
        return r;
    }
    return fd_steal(&lock);
}

static bool is_used(const struct registry *registry, uint64_t id, uint32_t number,
                    const enum message_role *role)
{
    if (role)
        return registry_find(registry, *role, id, number);
    for (const struct entry *entry = registry_next(registry, NULL); entry;
         entry = registry_next(registry, entry))
        if (entry->identity.id == id)
            return true;
    return false;
}

/* Removes the directories of migrations that are no more. role: that of all of them, by their keys; NULL:
 * any, by their ids alone. part: what stands in the names of their sockets. */
static void clean(const char *directory, const struct registry *registry, const enum message_role *role,
                  const char *part)
{
    DIR *dir = opendir(directory);
    const struct dirent *entry;
    char path[PATH_MAX];
    unsigned left = 0;

    while (dir && (entry = readdir(dir))) {
        uint32_t number;
        uint64_t id;

        if (!identity_read_key(entry->d_name, '\0', &id, &number) || is_used(registry, id, number, role))
            continue;
        snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
        left += !qemu_socket_remove_leftover(path, part);
    }
    if (dir)
        closedir(dir);
    if (left > 0)
        log_event(LOG_NOTICE, NULL, NULL,
                  "%u directories of former migrations stay in %s: there is something in them that vmferryd "
                  "has not "
                  "made.",
                  left, directory);
}

void runtime_dir_clean(const struct config *config, const struct registry *registry)
{
    char path[PATH_MAX];

    for (enum message_role role = ROLE_INCOMING; role <= ROLE_OUTGOING; role++) {
        snprintf(path, sizeof(path), "%s/%s", config->runtime_dir, role_text(role));
        clean(path, registry, &role, ".sock");
    }
    clean(config->libvirt_dir, registry, NULL, LAYOUT_INFIX);
}
