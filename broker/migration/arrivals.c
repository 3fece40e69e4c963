/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/arrivals.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "broker/migration/log.h"
#include "broker/migration/migration.h"
#include "broker/net/endpoint.h"

/* What a peer is told of a migration that has ended. */
static enum vf_error rejection_of(enum vf_error error, enum peer_kind kind)
{
    if (error == VF_ERROR_CANCELLED && kind == PEER_RESUME)
        return VF_ERROR_CANCELLED;
    return vf_error_to_result(error) == VF_RESULT_TIMED_OUT ? VF_ERROR_TICKET_EXPIRED : VF_ERROR_TICKET_USED;
}

/* By the host, for each connection has another port. */
static bool is_logged(struct arrivals *arrivals, const char *peer)
{
    char host[ADDRESS_TEXT_MAX];
    char *colon;

    snprintf(host, sizeof(host), "%s", peer);
    colon = strncmp(host, "unix:", 5) == 0 ? host + 4 : strrchr(host, ':');
    if (colon)
        *colon = '\0';
    return log_sample_of(&arrivals->rejected, host, "connections that were rejected");
}

static enum vf_error on_arrived(void *userdata, enum peer_kind kind, uint64_t id,
                                const struct message_mark *mark, int fd)
{
    struct arrivals *arrivals = userdata;
    const struct entry *entry = registry_find(arrivals->registry, ROLE_INCOMING, id, 0);
    char peer[ADDRESS_TEXT_MAX];

    if (entry && entry->identity.state != STATE_FINISHED) {
        endpoint_tune(fd);
        if (kind != PEER_CHANNEL)
            endpoint_tune_control(fd);
        migration_peer_arrived(entry->migration, kind, mark, fd);
        return VF_ERROR_NONE;
    }
    address_of_peer(fd, peer);
    if (!entry) {
        if (is_logged(arrivals, peer))
            log_event(LOG_NOTICE, NULL, NULL,
                      "%s asked for migration %016" PRIx64 ", which is not expected here.", peer, id);
        return VF_ERROR_NO_SUCH_MIGRATION;
    }
    if (is_logged(arrivals, peer))
        migration_log(&entry->identity, LOG_NOTICE, NULL, "%s asked for it, but it has ended.", peer);
    return rejection_of(entry->identity.error, kind);
}

const struct port_events arrivals_events = {.arrived = on_arrived};
