/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/migration.h"

/* Sockets that managers bring: OpenStream, AddStream, AddPeerConnection. */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "broker/migration/quota.h"
#include "broker/net/endpoint.h"
#include "broker/sockets/qemu-socket.h"
#include "common/cleanup.h"

/* Before a caller's socket is taken, so that he can bring it again later. */
static int admit_socket(const struct migration *migration, sd_bus_error *error)
{
    char why[QUOTA_WHY_MAX];

    if (quota_admit(migration, 1, why) >= 0)
        return 0;
    return error_set(error, VF_ERROR_LIMIT_EXCEEDED, "Migration %s can have no more sockets: %s",
                     migration->id_text, why);
}

int migration_open_stream(struct migration *migration, uint32_t stream, int *ret, sd_bus_error *error)
{
    int pair[2], r = admit_socket(migration, error);

    if (r < 0)
        return r;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    _cleanup_fd_ int ours = pair[0], theirs = pair[1];

    /* Only our end: the flag belongs to the end, and QEMU sets its own as it wants. */
    if (fcntl(ours, F_SETFL, O_NONBLOCK) < 0)
        return -errno;
    qemu_socket_tune(ours);
    qemu_socket_tune(theirs);
    r = stream_supply(&migration->streams[stream], fd_steal(&ours), true, error);
    if (r < 0)
        return r;
    *ret = fd_steal(&theirs);
    return 0;
}

/* supplied_check() and supplied_take(), of what no other migration was given: two that read one socket would
 * tear its bytes apart.
 */
static int take(struct migration *migration, int fd, bool unix_only, int *ret, sd_bus_error *error)
{
    const struct migration *other;
    struct stat st;
    int r = supplied_check(migration->manager->bus, fd, unix_only, error);

    if (r < 0)
        return r;
    if (fstat(fd, &st) < 0)
        return -errno;
    TAILQ_FOREACH(other, &migration->manager->migrations, entry)
    {
        if (other != migration && supplied_knows(&other->supplied, st.st_ino))
            return error_invalid(error, "That socket was given before, to migration %s. Pass each only once.",
                                 other->uid == migration->uid ? other->id_text : "of another user");
    }
    return supplied_take(&migration->supplied, fd, ret, error);
}

int migration_add_stream(struct migration *migration, uint32_t stream, int fd, sd_bus_error *error)
{
    int taken, r = admit_socket(migration, error);

    if (r >= 0)
        r = take(migration, fd, true, &taken, error);
    if (r < 0)
        return r;
    r = stream_supply(&migration->streams[stream], taken, false, error);
    if (r < 0)
        supplied_forget(&migration->supplied, fd);
    return r;
}

static void peer_name(const struct migration *migration, uint32_t number, char ret[static STORE_NAME_MAX])
{
    migration_store_name(migration, ret, "peer.%" PRIu32, number);
}

int migration_take_peer(struct migration *migration)
{
    char name[STORE_NAME_MAX];
    uint32_t number;
    int fd = supplied_get_peer(&migration->supplied, &number);

    if (fd >= 0) {
        peer_name(migration, number, name);
        store_remove(migration->manager->store, name);
    }
    return fd;
}

void migration_drop_peers(struct migration *migration)
{
    int fd;

    while ((fd = migration_take_peer(migration)) >= 0)
        close(fd);
    supplied_clear(&migration->supplied);
}

int migration_add_peer(struct migration *migration, int fd, sd_bus_error *error)
{
    char name[STORE_NAME_MAX];
    int taken, r = admit_socket(migration, error);

    if (r >= 0)
        r = take(migration, fd, false, &taken, error);
    if (r < 0)
        return r;
    endpoint_tune(taken);
    if (migration->role == ROLE_INCOMING) {
        union message m = {.peer = {.kind = PEER_ANY, .shared = true}};
        _cleanup_fd_ int owned = taken;

        if (helper_link_send(migration->helper, MESSAGE_PEER, &m, taken) >= 0)
            return 0;
        supplied_forget(&migration->supplied, fd);
        return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                         "Migration %s does not keep up with its peer connections.", migration->id_text);
    }
    r = supplied_put_peer(&migration->supplied, taken, ++migration->supplied_number);
    if (r < 0) {
        supplied_forget(&migration->supplied, fd);
        return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                         "%d peer connections of migration %s wait for a channel already.",
                         SUPPLIED_PEERS_MAX, migration->id_text);
    }
    peer_name(migration, migration->supplied_number, name);
    migration_store_socket(migration, name, taken);
    peer_dial_supply(migration);
    return 0;
}
