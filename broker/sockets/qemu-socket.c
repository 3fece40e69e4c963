/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/sockets/qemu-socket.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "broker/sockets/give.h"
#include "broker/sockets/open-path.h"
#include "common/cleanup.h"
#include "common/fd-pass.h"

enum { BACKLOG = 128, LOOKED_AT = 64 /* entries of a leftover directory */ };

static int open_no_links(int at, const char *path, int flags)
{
    return open_path(at, path, flags, false);
}

/* path without its last part, which comes after slash: below the allowed directory, and of the scope's user.
 */
static int open_in_scope(const char *path, const char *slash, const struct socket_scope *scope)
{
    char part[PATH_MAX];
    const char *rest = path + scope->beneath;
    _cleanup_fd_ int base = -1, fd = -1;
    struct stat st;

    snprintf(part, sizeof(part), "%.*s", (int)scope->beneath, path);
    base = open_no_links(AT_FDCWD, scope->beneath > 0 ? part : "/", O_PATH | O_DIRECTORY);
    if (base < 0)
        return base;
    rest += strspn(rest, "/");
    snprintf(part, sizeof(part), "%.*s", rest < slash ? (int)(slash - rest) : 0, rest);
    fd = open_path(base, part[0] != '\0' ? part : ".", O_PATH | O_DIRECTORY, true);
    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0)
        return -errno;
    return st.st_uid == scope->uid ? fd_steal(&fd) : -EFOREIGN;
}

/* The directory of path, and the name in it. */
static int open_parent(const char *path, const struct socket_scope *scope, const char **ret_name)
{
    char parent[PATH_MAX];
    const char *slash = strrchr(path, '/');

    if (!slash || strlen(path) >= sizeof(parent))
        return -ENAMETOOLONG;
    if (slash[1] == '\0' || strcmp(slash + 1, ".") == 0 || strcmp(slash + 1, "..") == 0)
        return -EISDIR;
    *ret_name = slash + 1;
    if (scope->restricted)
        return open_in_scope(path, slash, scope);
    memcpy(parent, path, (size_t)(slash - path));
    parent[slash - path] = '\0';
    return open_no_links(AT_FDCWD, slash == path ? "/" : parent, O_PATH | O_DIRECTORY);
}

/* What we have just made, in a directory that may be another user's, who can have swapped it. */
static int give_made(struct give *give, int dir, const char *name, mode_t type,
                     const struct socket_owner *owner)
{
    _cleanup_fd_ int file = open_no_links(dir, name, O_PATH | O_NOFOLLOW);
    struct stat st;

    if (file < 0)
        return file;
    if (fstat(file, &st) < 0)
        return -errno;
    if ((st.st_mode & S_IFMT) != type || st.st_uid != geteuid())
        return -EFOREIGN;
    return give_to(give, file, owner->uid, owner->gid);
}

static int make_parents(const char *path)
{
    char parent[PATH_MAX];

    for (const char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        memcpy(parent, path, (size_t)(slash - path));
        parent[slash - path] = '\0';
        if (mkdir(parent, 0755) >= 0) {
            if (chmod(parent, 0755) < 0) /* whatever the umask is */
                return -errno;
        } else if (errno != EEXIST) {
            return -errno;
        }
    }
    return 0;
}

int qemu_socket_make_directory(const char *path, const struct socket_owner *owner, struct give *give)
{
    static const struct socket_scope ours = {0};
    const struct socket_owner group = {.uid = geteuid(), .gid = owner->gid};
    const struct socket_owner user = {.uid = owner->uid, .gid = owner->group ? (gid_t)-1 : owner->gid};
    _cleanup_fd_ int parent = -1;
    const char *name;
    int r;

    if (strlen(path) >= PATH_MAX)
        return -ENAMETOOLONG;
    r = make_parents(path);
    if (r < 0)
        return r;
    parent = open_parent(path, &ours, &name);
    if (parent < 0)
        return parent;
    if (mkdirat(parent, name, 0700) < 0)
        return -errno;
    /* The group comes first, for what group the directory is of until then is none of the owner's. Its mode
     * while it is ours: that of another user's only CAP_FOWNER may change. */
    if (owner->group)
        r = give_made(give, parent, name, S_IFDIR, &group);
    if (r >= 0 && owner->group && fchmodat(parent, name, 0770, 0) < 0)
        r = -errno;
    if (r >= 0)
        r = give_made(give, parent, name, S_IFDIR, &user);
    if (r < 0)
        unlinkat(parent, name, AT_REMOVEDIR);
    return r;
}

static void closedirp(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

static void unlink_socket(int dir, const char *name)
{
    struct stat st;

    if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) >= 0 && S_ISSOCK(st.st_mode))
        unlinkat(dir, name, 0);
}

void qemu_socket_remove_in(const char *directory, const char *path)
{
    size_t n = strlen(directory);
    _cleanup_fd_ int dir = -1;

    if (strncmp(path, directory, n) != 0 || path[n] != '/')
        return;
    dir = open_no_links(AT_FDCWD, directory, O_RDONLY | O_DIRECTORY);
    if (dir >= 0)
        unlink_socket(dir, path + n + 1);
}

bool qemu_socket_remove_directory(const char *path)
{
    return rmdir(path) >= 0 || errno != ENOTEMPTY;
}

bool qemu_socket_remove_leftover(const char *path, const char *part)
{
    int fd = open_no_links(AT_FDCWD, path, O_RDONLY | O_DIRECTORY);
    _cleanup_(closedirp) DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    const struct dirent *entry;

    if (!dir)
        fd_closep(&fd);
    /* Ours are 16 at most; of a directory that its owner has filled no more is read. */
    for (int i = 0; dir && i < LOOKED_AT && (entry = readdir(dir)); i++)
        if (strstr(entry->d_name, part))
            unlink_socket(fd, entry->d_name);
    return qemu_socket_remove_directory(path);
}

/* bind(2) and connect(2) have no *at(): the descriptor's name in /proc stands for what was opened. */
static int address_at(int fd, const char *name, struct sockaddr_un *ret)
{
    int n;

    *ret = (struct sockaddr_un){.sun_family = AF_UNIX};
    n = snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d%s%s", fd, name ? "/" : "",
                 name ? name : "");
    return n < 0 || (size_t)n >= sizeof(ret->sun_path) ? -ENAMETOOLONG : 0;
}

int qemu_socket_listen(const char *path, const struct socket_scope *scope, const struct socket_owner *owner,
                       struct give *give)
{
    _cleanup_fd_ int dir = -1, fd = -1;
    struct sockaddr_un address;
    const char *name;
    mode_t mask;
    int r;

    dir = open_parent(path, scope, &name);
    if (dir < 0)
        return dir;
    r = address_at(dir, name, &address);
    if (r < 0)
        return r;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    socket_refuse_descriptors(fd); /* so do those that it accepts */
    /* Nobody can connect before listen(2), and by then the owner is right. The mode is from the beginning:
     * the name may be another one's by now. */
    mask = umask(owner->group ? 0117 : 0177);
    r = bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
    umask(mask);
    if (r < 0)
        return r == -EADDRINUSE ? -EEXIST : r;
    /* Owner, then listen(2): see above. */
    r = give_made(give, dir, name, S_IFSOCK, owner);
    if (r >= 0 && listen(fd, BACKLOG) < 0)
        r = -errno;
    if (r < 0) {
        unlinkat(dir, name, 0);
        return r;
    }
    return fd_steal(&fd);
}

void qemu_socket_tune(int fd)
{
    const int size = QEMU_SOCKET_BUFFER;

    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    socket_refuse_descriptors(fd);
}

void qemu_socket_unlink(const char *path, const struct socket_scope *scope)
{
    const char *name;
    struct stat st;
    _cleanup_fd_ int dir = open_parent(path, scope, &name);

    if (dir >= 0 && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) >= 0 && S_ISSOCK(st.st_mode) &&
        (!scope->restricted || st.st_uid == scope->uid))
        unlinkat(dir, name, 0);
}

int qemu_socket_connect_by(int fd, const char *path, const struct socket_scope *scope)
{
    _cleanup_fd_ int dir = -1, file = -1;
    struct sockaddr_un address;
    struct stat st;
    const char *name;
    int r;

    dir = open_parent(path, scope, &name);
    if (dir < 0)
        return dir;
    /* What is looked at is what is connected to: a name could lead to another socket by the time of
     * connect(2). */
    file = open_no_links(dir, name, O_PATH | O_NOFOLLOW);
    if (file < 0)
        return file;
    if (fstat(file, &st) < 0)
        return -errno;
    if (S_ISLNK(st.st_mode))
        return -ELOOP;
    if (!S_ISSOCK(st.st_mode))
        return -ENOTSOCK;
    if (scope->restricted && st.st_uid != scope->uid)
        return -EFOREIGN;
    r = address_at(file, NULL, &address);
    if (r < 0)
        return r;
    return connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
}

int qemu_socket_connect(const char *path, const struct socket_scope *scope)
{
    _cleanup_fd_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int r = fd < 0 ? -errno : qemu_socket_connect_by(fd, path, scope);

    return r < 0 ? r : fd_steal(&fd);
}

/* Whether the process at the other end is in the group, by its own or a supplementary one, socket(7). */
static bool peer_in_group(int fd, gid_t own, gid_t wanted)
{
    gid_t groups[256];
    socklen_t size = sizeof(groups);

    if (own == wanted)
        return true;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) < 0)
        return false;
    for (size_t i = 0; i < size / sizeof(groups[0]); i++)
        if (groups[i] == wanted)
            return true;
    return false;
}

bool qemu_socket_peer_is(int fd, const struct socket_owner *owner, uid_t *ret_uid)
{
    struct ucred cred = {.uid = (uid_t)-1};
    socklen_t size = sizeof(cred);

    *ret_uid = (uid_t)-1;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) < 0)
        return false;
    *ret_uid = cred.uid;
    if (cred.uid == owner->uid || owner->only)
        return cred.uid == owner->uid;
    return cred.uid == 0 || (owner->group && peer_in_group(fd, cred.gid, owner->gid));
}
