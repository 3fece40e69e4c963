/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/supply.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "broker/errors.h"
#include "broker/migration/internal.h"
#include "broker/migration/quota.h"
#include "broker/migration/stream-dial.h"
#include "broker/release.h"
#include "common/cleanup.h"

/* Before a caller's socket is taken, so that the caller can bring it again later. */
static int admit_socket(const struct migration *migration, sd_bus_error *error)
{
    const struct migration_services *services = migration->services;
    char why[QUOTA_WHY_MAX];

    if (quota_admit(services->registry, services->config, &migration->entry, 1, why) >= 0)
        return 0;
    return error_set(error, VF_ERROR_LIMIT_EXCEEDED, "Migration %s can have no more sockets: %s",
                     migration->entry.identity.id_text, why);
}

int supply_open_stream(struct migration *migration, uint32_t stream, int *ret, sd_bus_error *error)
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
    r = stream_supply(&migration->streams.each[stream], fd_steal(&ours), true, error);
    if (r < 0)
        return r;
    *ret = fd_steal(&theirs);
    return 0;
}

/* Takes a copy of a caller's socket that no other migration was given: two that read one socket would tear
 * its bytes apart. */
static int take(struct migration *migration, int fd, bool unix_only, int *ret, sd_bus_error *error)
{
    const struct entry *other;
    struct stat st;
    int r;

    if (release_is_stuck())
        return error_set(
            error, VF_ERROR_LIMIT_EXCEEDED,
            "vmferryd takes no descriptor now: too many that were passed before do not close. Try again "
            "later.");
    r = supplied_check(migration->services->bus_fd, fd, unix_only, error);
    if (r < 0)
        return r;
    if (fstat(fd, &st) < 0)
        return -errno;
    TAILQ_FOREACH(other, &migration->services->registry->entries, next)
    {
        if (other != &migration->entry && other->supplied && supplied_knows(other->supplied, st.st_ino))
            return error_invalid(error, "That socket was given before, to migration %s. Pass each only once.",
                                 other->identity.uid == migration->entry.identity.uid
                                     ? other->identity.id_text
                                     : "of another user");
    }
    return supplied_take(&migration->supplied, fd, ret, error);
}

int supply_add_stream(struct migration *migration, uint32_t stream, int fd, sd_bus_error *error)
{
    int taken, r = admit_socket(migration, error);

    if (r >= 0)
        r = take(migration, fd, true, &taken, error);
    if (r < 0)
        return r;
    r = stream_supply(&migration->streams.each[stream], taken, false, error);
    if (r < 0)
        supplied_forget(&migration->supplied, fd);
    return r;
}

/* Incoming: the helper finds out which connection it is. Takes fd. */
static int send_peer(struct migration *migration, int fd)
{
    union message m = {.peer = {.kind = PEER_ANY, .shared = true}};
    _cleanup_fd_ int owned = fd;

    return helper_side_send(&migration->helper, MESSAGE_PEER, &m, owned);
}

int supply_add_peer(struct migration *migration, int fd, sd_bus_error *error)
{
    const struct identity *identity = &migration->entry.identity;
    int taken, r = admit_socket(migration, error);

    if (r >= 0)
        r = take(migration, fd, false, &taken, error);
    if (r < 0)
        return r;
    if (identity->role == ROLE_INCOMING)
        r = send_peer(migration, taken);
    else
        r = peer_dials_bring(&migration->dials, taken);
    if (r >= 0)
        return 0;
    supplied_forget(&migration->supplied, fd);
    if (identity->role == ROLE_INCOMING)
        return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                         "Migration %s does not keep up with its peer connections.", identity->id_text);
    return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                     "%d peer connections of migration %s wait for a channel already.", QUEUE_MAX,
                     identity->id_text);
}

void supply_hand_over(struct migration *migration)
{
    for (uint32_t i = 0; i < migration->options.n_streams; i++)
        queue_hand_over(&migration->streams.each[i].supplied);
    queue_hand_over(&migration->dials.brought);
}

void supply_kept(struct migration *migration, const struct message_keep *m)
{
    struct queue *queue = NULL;

    if (m->what == KEPT_FOR_PEER && migration->entry.identity.role == ROLE_OUTGOING)
        queue = &migration->dials.brought;
    else if (m->what == KEPT_FOR_QEMU && migration->entry.identity.role == ROLE_INCOMING &&
             m->stream < migration->options.n_streams)
        queue = &migration->streams.each[m->stream].supplied;
    /* Only between SYNCED and the first state: a helper may be hostile, and would fill the queues with
     * sockets that it does not have. */
    if (!queue || m->number == 0 || migration->helper.voice != VOICE_SYNCED ||
        queue_put_kept(queue, m->number, m->shared == 0) < 0)
        helper_side_kill(&migration->helper, "claimed to keep a socket that it was not given");
}
