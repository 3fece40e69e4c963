/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The sockets that libvirt's own calls go by. Nothing here needs libvirt's library. */

#include "ctl/bus/tunnel.h"
#include "ctl/loop.h"

#define STREAM_LIBVIRT "libvirt" /* of a tunnel; see org.vmferry.Broker1(5), sockets */
#define URI_MAX        512

/* Connections to libvirtd that are kept ready: the source's libvirtd and its vmferryctl need one each; after
 * a loss vmferryctl needs another. */
#define LIBVIRT_AHEAD 2

/*
 * Connects to the libvirtd (or virtqemud) of this host, the user's with --user; the FD, which blocks, or -1
 * with a trouble. libvirtd asks who this process is when its client logs in, so it has to live until then.
 */
int libvirt_connect(const struct ctl *ctl, struct trouble *trouble);

/* Which one it is in libvirt's addresses: "system", or "session" with --user. */
const char *libvirt_instance(const struct ctl *ctl);

/* Whether there is one to connect to, also where it would refuse. */
bool libvirt_is_here(const struct ctl *ctl);

/*
 * What libvirt calls a UNIX socket in a migration, unix://PATH with all escaped that a URI cannot have, as a
 * domain's name may have it: fills in ret, and returns it; "" where it is too long.
 */
const char *socket_uri(const char *path, char ret[static URI_MAX]);

/* Hands a connected socket to the tunnel's broker, on this host, without waiting for its answer. Borrows fd.
 * 0, or -1 with a trouble. */
int libvirt_supply(const struct tunnel *tunnel, int fd, struct trouble *trouble);

/*
 * Keeps connections to libvirtd ready at the destination's broker, ahead of the source's use of them: few,
 * for libvirtd lets few wait that have not logged in. record: of the tunnel. *supplied counts them; 0 at
 * first. 0, or -1 with a trouble.
 */
int libvirt_supply_ahead(const struct tunnel *tunnel, json_object *record, unsigned *supplied,
                         struct trouble *trouble);

/*
 * A socket in a directory that only this user and root can enter: libvirt connects to it by an address of the
 * kind qemu+unix:///system?socket=PATH, and each connection of libvirtd (root) or of this user is given on.
 */
struct door;

/* Gives a connection on, in the event loop: it may not wait. Borrows fd. false: it is closed. */
typedef bool (*door_give_t)(int fd, void *userdata);

/* 0, and door_close() is the caller's; or -1 with a trouble. */
int door_open(struct ctl *ctl, door_give_t give, void *userdata, struct door **ret, struct trouble *trouble);
/* Valid until door_close(). */
const char *door_path(const struct door *door);

/* The address for libvirt: fills in ret, and returns it. */
const char *door_uri(const struct door *door, char ret[static URI_MAX]);

/* The same for a door that another process has opened there. */
const char *door_uri_of(const struct ctl *ctl, const char *path, char ret[static URI_MAX]);

/* Closes and removes it; connections that were given on stay. NULL: nothing. */
void door_close(struct door *door);

static inline void door_closep(struct door **door)
{
    door_close(*door);
}
