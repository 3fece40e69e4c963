/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/verbs/stdio.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/address.h"
#include "common/cleanup.h"
#include "ctl/bus/bus-socket.h"
#include "ctl/bus/stream.h"
#include "ctl/libvirt/socket.h"
#include "ctl/qemu/qmp-connect.h"
#include "ctl/qemu/userfaultfd.h"
#include "ctl/ssh/relay.h"
#include "ctl/ssh/remote.h"

/*
 * 'vmferryctl stdio …', the far end of an ssh connection: connects to something of this host, says so, and
 * relays between it and stdin and stdout.
 *
 *   stdio bus                 the D-Bus that the options name
 *   stdio qmp PATH            a monitor
 *   stdio postcopy [sysctl]   nothing: says whether any QEMU may receive a post-copy there; sysctl: also one
 *                             that does not know /dev/userfaultfd
 *   stdio peer OBJECT         a connection that this migration's helper has with its peer
 *   stdio libvirt             libvirtd
 *   stdio libvirt-in OBJECT   hands connections to libvirtd to the broker for this migration, and stays
 *   stdio libvirt-out OBJECT  makes a socket for libvirtd, tells its path, hands its connections to the
 *                             broker
 *   stdio sink OBJECT         a connection of this migration's stream; drops its bytes here
 *
 * systemd-stdio-bridge(1) relays a bus, too. But it does not say that it is connected, nor, with one line and
 * an exit status, why it is not, and looks for the bus by rules of its own.
 */

static int check_path(const char *path, struct trouble *trouble)
{
    if (strncmp(path, BROKER_PATH "/", strlen(BROKER_PATH "/")) == 0 && sd_bus_object_path_is_valid(path))
        return 0;
    return trouble_set(trouble, STATUS_USAGE, "'%s' is no migration's object.", path);
}

static int open_peer(struct ctl *ctl, const char *path, struct trouble *trouble)
{
    _cleanup_(side_close) struct side side = {0};
    _cleanup_fd_ int ours = -1, theirs = -1;
    int pair[2];

    if (check_path(path, trouble) < 0)
        return -1;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return trouble_set(trouble, STATUS_FAILED, "Cannot make a socket: %s.", strerror(errno));
    ours = pair[0];
    theirs = pair[1];
    if (side_open(ctl, &side, trouble) < 0 ||
        side_call(&side, path, MIGRATION_INTERFACE, "AddPeerConnection", NULL, trouble,
                  "Cannot hand a connection to the broker", "h", theirs) < 0)
        return -1;
    return fd_steal(&ours);
}

static void greet_from(uid_t uid, const char *address)
{
    printf(REMOTE_GREETING "%u%s%s\n", (unsigned)uid, address[0] ? " " : "", address);
    fflush(stdout);
}

static void greet(uid_t uid)
{
    greet_from(uid, "");
}

/* This host's address of the ssh connection, as sshd says: client, its port, server, its port. */
static void find_own_address(char ret[static INET6_ADDRSTRLEN])
{
    const char *connection = getenv("SSH_CONNECTION");
    char address[INET6_ADDRSTRLEN];

    ret[0] = '\0';
    if (connection && sscanf(connection, "%*s %*s %45s", address) == 1 && address_is_ip(address))
        strcpy(ret, address);
}

static int run_sink(struct ctl *ctl, char *path, struct trouble *trouble)
{
    _cleanup_(side_close) struct side side = {0};
    _cleanup_fd_ int fd = -1;
    struct tunnel tunnel = {.side = &side, .path = path};

    if (check_path(path, trouble) < 0 || side_open(ctl, &side, trouble) < 0)
        return -1;
    fd = stream_open(&tunnel, trouble);
    if (fd < 0)
        return -1;
    greet(getuid());
    stream_drain(fd);
    return STATUS_DONE;
}

static bool give(int fd, void *userdata)
{
    return libvirt_supply(userdata, fd, NULL) >= 0;
}

static int on_stdin(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    bool *over = userdata;

    *over = true; /* nothing is ever said there: it is closed */
    return sd_event_source_set_enabled(source, SD_EVENT_OFF);
}

/* Stays until the other end of ssh closes; in: and brings connections to libvirtd meanwhile. */
static int stay(const struct tunnel *tunnel, bool in, unsigned supplied, struct trouble *trouble)
{
    struct ctl *ctl = tunnel->side->ctl;
    bool over = false;
    int r = sd_event_add_io(ctl->event, NULL, STDIN_FILENO, EPOLLIN, on_stdin, &over);

    if (r < 0)
        return trouble_set(trouble, STATUS_FAILED, "Cannot watch stdin: %s.", strerror(-r));
    while (!over) {
        _cleanup_json_ json_object *record = NULL;

        if (in && (tunnel_read(tunnel, &record, trouble) < 0 ||
                   libvirt_supply_ahead(tunnel, record, &supplied, trouble) < 0))
            return -1;
        if (ctl_turn(ctl, in ? SECOND / 4 : UINT64_MAX, trouble) < 0)
            return -1;
    }
    return STATUS_DONE;
}

/* Waits for the answer: the broker may take none. */
static int supply_one(const struct tunnel *tunnel, struct trouble *trouble)
{
    _cleanup_fd_ int fd = libvirt_connect(tunnel->side->ctl, trouble);

    return fd < 0
               ? -1
               : side_call(tunnel->side, tunnel->path, MIGRATION_INTERFACE, "AddStream", NULL, trouble,
                           "Cannot hand a connection of libvirt's to the broker", "sh", STREAM_LIBVIRT, fd);
}

/* The hosts may still be connecting: stay() would look again only after a while, for which the source's
 * libvirtd would wait. */
static int supply_first(const struct tunnel *tunnel, unsigned *supplied, struct trouble *trouble)
{
    for (*supplied = 0; *supplied < LIBVIRT_AHEAD; ++*supplied)
        if (supply_one(tunnel, trouble) < 0)
            return -1;
    return 0;
}

static int run_libvirt(struct ctl *ctl, char *path, bool in, struct trouble *trouble)
{
    _cleanup_(side_close) struct side side = {0};
    _cleanup_(door_closep) struct door *door = NULL;
    struct tunnel tunnel = {.side = &side, .path = path};
    unsigned supplied = 0;

    if (check_path(path, trouble) < 0 || side_open(ctl, &side, trouble) < 0)
        return -1;
    if ((in ? supply_first(&tunnel, &supplied, trouble) : door_open(ctl, give, &tunnel, &door, trouble)) < 0)
        return -1;
    greet(getuid());
    if (door)
        puts(door_path(door));
    fflush(stdout);
    return stay(&tunnel, in, supplied, trouble);
}

int verb_stdio(struct ctl *ctl, struct trouble *trouble)
{
    const char *what = ctl->arguments.operands[0];
    static char none[] = "";
    char *which = ctl->arguments.n_operands > 1 ? ctl->arguments.operands[1] : none;
    _cleanup_fd_ int fd = -1;
    char address[INET6_ADDRSTRLEN] = "";
    uid_t uid = getuid();

    if (ctl->arguments.host)
        return trouble_set(trouble, STATUS_USAGE, "'stdio' is for this host.");
    if (strcmp(what, "postcopy") == 0) {
        if (!userfaultfd_is_for_all(strcmp(which, "sysctl") != 0))
            return trouble_set(trouble, STATUS_FAILED, "Only root.");
        greet(uid);
        return STATUS_DONE;
    }
    if (strcmp(what, "sink") == 0)
        return run_sink(ctl, which, trouble);
    if (strcmp(what, "libvirt-in") == 0 || strcmp(what, "libvirt-out") == 0)
        return run_libvirt(ctl, which, strcmp(what, "libvirt-in") == 0, trouble);
    if (strcmp(what, "bus") == 0)
        fd = bus_socket_connect(&ctl->arguments, trouble);
    else if (strcmp(what, "qmp") == 0)
        fd = qmp_connect(ctl, which, &uid, trouble);
    else if (strcmp(what, "libvirt") == 0)
        fd = libvirt_connect(ctl, trouble);
    else if (strcmp(what, "peer") == 0)
        fd = open_peer(ctl, which, trouble);
    else
        return trouble_set(trouble, STATUS_USAGE,
                           "'stdio' knows bus, qmp, postcopy, libvirt, peer and sink, not '%s'.", what);
    if (fd < 0)
        return -1;
    if (strcmp(what, "bus") == 0)
        find_own_address(address);
    greet_from(uid, address);
    ctl->relayed = true;
    relay_run(STDIN_FILENO, STDOUT_FILENO, fd);
    return STATUS_DONE;
}
