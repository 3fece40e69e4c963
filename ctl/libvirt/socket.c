/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/libvirt/socket.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/cleanup.h"
#include "ctl/private-directory.h"

enum { SUPPLIES_MAX = 32 };

/* ---- libvirt's ---- */

static int connect_to(const char *directory, const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    _cleanup_fd_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int n = snprintf(address.sun_path, sizeof(address.sun_path), "%s/libvirt/%s", directory, name);

    if (fd < 0 || n < 0 || (size_t)n >= sizeof(address.sun_path))
        return fd < 0 ? -errno : -ENAMETOOLONG;
    return connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : fd_steal(&fd);
}

static const char *const names[] = {"virtqemud-sock", "libvirt-sock"};

static const char *find_directory(const struct ctl *ctl)
{
    return ctl->arguments.user ? getenv("XDG_RUNTIME_DIR") : "/run";
}

const char *libvirt_instance(const struct ctl *ctl)
{
    return ctl->arguments.user ? "session" : "system";
}

bool libvirt_is_here(const struct ctl *ctl)
{
    const char *directory = find_directory(ctl);
    char path[PATH_MAX];
    bool found = false;

    for (size_t i = 0; directory && i < 2; i++) {
        snprintf(path, sizeof(path), "%s/libvirt/%s", directory, names[i]);
        found = found || access(path, F_OK) == 0;
    }
    return found;
}

int libvirt_connect(const struct ctl *ctl, struct trouble *trouble)
{
    const char *directory = find_directory(ctl);
    int r = -ENOENT;

    for (size_t i = 0; directory && i < 2; i++) {
        r = connect_to(directory, names[i]);
        if (r >= 0)
            return r;
        if (r != -ENOENT)
            break;
    }
    if (r == -EACCES || r == -EPERM)
        return trouble_set(
            trouble, STATUS_DENIED,
            "libvirt does not let this user in. Run it as root, or as a member of the group libvirt.");
    return trouble_set(trouble, STATUS_FAILED, "Cannot connect to libvirtd (%s/libvirt/libvirt-sock): %s. %s",
                       directory ? directory : "$XDG_RUNTIME_DIR", strerror(-r),
                       ctl->arguments.user
                           ? "Start it there as this user: virsh -c qemu:///session list"
                           : "Is libvirt installed, and libvirtd.socket or virtqemud.socket started?");
}

const char *socket_uri(const char *path, char ret[static URI_MAX])
{
    static const char plain[] = "/-._~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    size_t n = (size_t)snprintf(ret, URI_MAX, "unix://");

    for (; *path && n + 3 < URI_MAX; path++)
        n += (size_t)snprintf(ret + n, URI_MAX - n, strchr(plain, *path) ? "%c" : "%%%02X",
                              (unsigned char)*path);
    if (*path)
        ret[0] = '\0';
    return ret;
}

/* ---- To the broker ---- */

static int on_supplied(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    const struct ctl *ctl = userdata;

    if (sd_bus_message_is_method_error(m, NULL))
        ctl_say(ctl, "The broker takes no connection of libvirt's: %s", sd_bus_message_get_error(m)->message);
    return 0;
}

int libvirt_supply(const struct tunnel *tunnel, int fd, struct trouble *trouble)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
    struct side *side = tunnel->side;
    int r;

    if (side_message(side, tunnel->path, MIGRATION_INTERFACE, "AddStream", &m, trouble) < 0)
        return -1;
    r = sd_bus_message_append(m, "sh", STREAM_LIBVIRT, fd);
    if (r >= 0)
        r = sd_bus_call_async(side->bus, NULL, m, on_supplied, side->ctl, 0);
    return r < 0 ? trouble_set(trouble, STATUS_FAILED,
                               "Cannot hand a connection of libvirt's to the broker: %s.", strerror(-r))
                 : 0;
}

/* How many channels of libvirt's the source has opened. */
static unsigned count_used(json_object *record)
{
    json_object *channels = record_list(record, "Channels");
    unsigned n = 0;

    for (size_t i = 0; channels && i < json_object_array_length(channels); i++)
        n += strcmp(record_text(json_object_array_get_idx(channels, i), "Stream"), STREAM_LIBVIRT) == 0;
    return n;
}

int libvirt_supply_ahead(const struct tunnel *tunnel, json_object *record, unsigned *supplied,
                         struct trouble *trouble)
{
    const char *state = record_text(record, "State");
    unsigned used = count_used(record);

    if (strcmp(state, "waiting") == 0 || strcmp(state, "finished") == 0)
        return 0;
    while (*supplied < used + LIBVIRT_AHEAD && *supplied < SUPPLIES_MAX) {
        _cleanup_fd_ int fd = libvirt_connect(tunnel->side->ctl, trouble);

        if (fd < 0 || libvirt_supply(tunnel, fd, trouble) < 0)
            return -1;
        ++*supplied;
    }
    return 0;
}

/* ---- The door ---- */

struct door {
    const struct ctl *ctl;
    door_give_t give;
    void *userdata;
    int listener;
    sd_event_source *source;
    struct private_directory directory;
    char path[PRIVATE_DIRECTORY_MAX + sizeof("/libvirt")];
};

static int on_accept(sd_event_source *source, int listener, uint32_t revents, void *userdata)
{
    const struct door *door = userdata;
    _cleanup_fd_ int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    struct ucred peer;
    socklen_t size = sizeof(peer);

    /* The directory keeps others out already. */
    if (fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) >= 0 &&
        (peer.uid == 0 || peer.uid == geteuid()))
        door->give(fd, door->userdata);
    return 0;
}

static int make_directory(struct door *door)
{
    const char *runtime = geteuid() == 0 ? "/run" : getenv("XDG_RUNTIME_DIR");
    int r =
        private_directory_make(runtime && runtime[0] == '/' ? runtime : "/tmp", "libvirt", &door->directory);

    if (r >= 0)
        snprintf(door->path, sizeof(door->path), "%s/libvirt", door->directory.path);
    return r;
}

static int listen_at(struct door *door)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    static_assert(sizeof(door->path) <= sizeof(address.sun_path), "a path fits");
    memcpy(address.sun_path, door->path, sizeof(door->path));
    door->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (door->listener < 0 || bind(door->listener, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(door->listener, 4) < 0)
        return -errno;
    return 0;
}

int door_open(struct ctl *ctl, door_give_t give, void *userdata, struct door **ret, struct trouble *trouble)
{
    struct door *door = calloc(1, sizeof(*door));
    int r;

    if (!door)
        return trouble_no_memory(trouble);
    *door = (struct door){.ctl = ctl, .give = give, .userdata = userdata, .listener = -1};
    r = make_directory(door);
    if (r >= 0)
        r = listen_at(door);
    if (r >= 0)
        r = sd_event_add_io(ctl->event, &door->source, door->listener, EPOLLIN, on_accept, door);
    if (r < 0) {
        door_close(door);
        return trouble_set(trouble, STATUS_FAILED, "Cannot make a socket for libvirt: %s.", strerror(-r));
    }
    *ret = door;
    return 0;
}

const char *door_path(const struct door *door)
{
    return door->path;
}

const char *door_uri(const struct door *door, char ret[static URI_MAX])
{
    return door_uri_of(door->ctl, door->path, ret);
}

const char *door_uri_of(const struct ctl *ctl, const char *path, char ret[static URI_MAX])
{
    snprintf(ret, URI_MAX, "qemu+unix:///%s?socket=%s", libvirt_instance(ctl), path);
    return ret;
}

void door_close(struct door *door)
{
    if (!door)
        return;
    sd_event_source_disable_unref(door->source);
    fd_closep(&door->listener);
    private_directory_remove(&door->directory);
    free(door);
}
