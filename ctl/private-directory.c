/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/private-directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/cleanup.h"

#define RANDOM_PART "XXXXXX" /* of mkdtemp(3) */

static int open_directory(const char *path)
{
    return open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
}

/* Whether the path still leads to it. */
static bool is_at(int fd, const char *path)
{
    struct stat here, there;

    return fstat(fd, &here) >= 0 && lstat(path, &there) >= 0 && here.st_dev == there.st_dev &&
           here.st_ino == there.st_ino;
}

static void remove_files(int fd)
{
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    DIR *dir = copy >= 0 ? fdopendir(copy) : NULL;

    if (!dir) {
        fd_closep(&copy);
        return;
    }
    for (const struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
        unlinkat(fd, entry->d_name, 0); /* no directory */
    closedir(dir);
}

/*
 * Removes it where its process is gone. One that was just made has no lock yet: its maker waits for ours, and
 * then finds it gone.
 */
static void remove_if_left(const char *path)
{
    _cleanup_fd_ int fd = open_directory(path);
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0 || st.st_uid != geteuid() || flock(fd, LOCK_EX | LOCK_NB) < 0 ||
        !is_at(fd, path))
        return;
    remove_files(fd);
    rmdir(path);
}

static void remove_left(const char *base, const char *prefix)
{
    DIR *dir = opendir(base);

    if (!dir)
        return;
    for (const struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
        char path[PRIVATE_DIRECTORY_MAX];

        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0 &&
            strlen(entry->d_name) == strlen(prefix) + strlen(RANDOM_PART) &&
            (size_t)snprintf(path, sizeof(path), "%s/%s", base, entry->d_name) < sizeof(path))
            remove_if_left(path);
    }
    closedir(dir);
}

/* Locks it. -EAGAIN: another vmferryctl took it for one that was left. */
static int take(struct private_directory *directory)
{
    directory->lock = open_directory(directory->path);
    if (directory->lock < 0)
        return errno == ENOENT ? -EAGAIN : -errno;
    while (flock(directory->lock, LOCK_EX) < 0)
        if (errno != EINTR)
            return -errno;
    return is_at(directory->lock, directory->path) ? 0 : -EAGAIN;
}

int private_directory_make(const char *base, const char *kind, struct private_directory *ret)
{
    char prefix[PRIVATE_DIRECTORY_MAX];
    int r;

    *ret = (struct private_directory){.lock = -1};
    if ((size_t)snprintf(prefix, sizeof(prefix), "vmferryctl-%s-", kind) >= sizeof(prefix))
        return -ENAMETOOLONG;
    remove_left(base, prefix);
    do {
        fd_closep(&ret->lock);
        if ((size_t)snprintf(ret->path, sizeof(ret->path), "%s/%s" RANDOM_PART, base, prefix) >=
            sizeof(ret->path))
            r = -ENAMETOOLONG;
        else
            r = mkdtemp(ret->path) ? take(ret) : -errno;
    } while (r == -EAGAIN);
    if (r < 0) {
        fd_closep(&ret->lock);
        ret->path[0] = '\0';
    }
    return r;
}

void private_directory_remove(struct private_directory *directory)
{
    if (directory->path[0] == '\0')
        return;
    remove_files(directory->lock);
    rmdir(directory->path);
    fd_closep(&directory->lock);
    directory->path[0] = '\0';
}
