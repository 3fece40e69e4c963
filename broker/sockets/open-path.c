/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/sockets/open-path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"

/* The mount that it is on. */
static int mount_of(int fd, uint64_t *ret)
{
    struct statx st;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &st) < 0)
        return -errno;
    if (!(st.stx_mask & STATX_MNT_ID))
        return -EOPNOTSUPP;
    *ret = st.stx_mnt_id;
    return 0;
}

/* One part of a path; name has no slash. */
static int open_part(int at, const char *name, int flags)
{
    _cleanup_fd_ int fd = openat(at, name, flags | O_NOFOLLOW | O_CLOEXEC);
    struct stat st;
    int error = errno;

    /* What of a symbolic link is opened, or refused by another name than this. */
    if ((fd >= 0 ? fstat(fd, &st) : fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW)) >= 0 && S_ISLNK(st.st_mode))
        return -ELOOP;
    return fd < 0 ? -error : fd_steal(&fd);
}

int open_path(int at, const char *path, int flags, bool beneath)
{
    _cleanup_fd_ int dir = -1;
    char name[NAME_MAX + 1];
    uint64_t home = 0, mount = 0;
    int r;

    if (path[0] == '\0')
        return -ENOENT;
    if (path[0] == '/' && beneath)
        return -EXDEV;
    dir = openat(at, path[0] == '/' ? "/" : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
    r = dir < 0 ? -errno : mount_of(dir, &home);
    for (path += strspn(path, "/"); r >= 0 && path[0] != '\0'; path += strspn(path, "/")) {
        size_t n = strcspn(path, "/");
        bool last = path[n + strspn(path + n, "/")] == '\0';
        int next;

        if (n > NAME_MAX)
            return -ENAMETOOLONG;
        memcpy(name, path, n);
        name[n] = '\0';
        path += n;
        if (beneath && strcmp(name, "..") == 0)
            return -EXDEV;
        next = open_part(dir, name, last ? flags : O_PATH | O_DIRECTORY);
        if (next < 0)
            return next;
        fd_closep(&dir);
        dir = next;
        if (beneath) {
            r = mount_of(dir, &mount);
            if (r >= 0 && mount != home)
                return -EXDEV;
        }
    }
    return r < 0 ? r : fd_steal(&dir);
}
