/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/libvirt/places.h"

#define FAR_AGAIN  (5 * SECOND) /* between two tries to reach the libvirt of the destination */
#define NEAR_AGAIN SECOND       /* and of the source, whose libvirtd may have been restarted */

bool is_gone(enum domain_state state)
{
    return state == DOMAIN_NONE || state == DOMAIN_OFF;
}

bool is_in_postcopy(enum domain_state near)
{
    return near == DOMAIN_PAUSED_POSTCOPY || near == DOMAIN_PAUSED_POSTCOPY_FAILED;
}

bool places_moved(const struct places *places)
{
    return is_gone(places->near) && (places->far == DOMAIN_RUNS || places->far == DOMAIN_PAUSED);
}

bool places_both_run(const struct places *places)
{
    return places->near == DOMAIN_RUNS && (places->far == DOMAIN_RUNS || places->far == DOMAIN_RUNS_POSTCOPY);
}

int places_open_near(struct move *move, struct host *ret, struct trouble *trouble)
{
    const struct arguments *a = &move->ctl->arguments;

    if (a->host && !a->connect)
        return host_open_by_ssh(move->ctl, a->host, move->source.where, ret, trouble);
    if (a->connect)
        return host_open(move->ctl, a->connect, move->source.where, ret, trouble);
    return host_open_here(move->ctl, move->source.where, ret, trouble);
}

/* The connection and the domain of the source's libvirt, anew: libvirtd has ended, and may be back. */
static void reach_near(struct move *move)
{
    struct host again;

    if (places_open_near(move, &again, NULL) < 0)
        return;
    if (move->domain)
        move->near.libvirt->virDomainFree(move->domain);
    host_close(&move->near);
    move->near = again;
    move->domain = again.libvirt->virDomainLookupByUUIDString(again.connection, move->uuid);
}

/* The same for the destination, where the connection was lost with the network, too. */
static void reach_far(struct move *move)
{
    host_close(&move->far);
    if (move->destination.host)
        host_open_by_ssh(move->ctl, move->destination.host, move->destination.where, &move->far, NULL);
    else if (move->door)
        host_open_through(move->ctl, move->door, " at the destination", &move->far, NULL);
}

static bool is_due(uint64_t *due, uint64_t wait)
{
    if (ctl_now() < *due)
        return false;
    *due = ctl_now() + wait;
    return true;
}

void places_look(struct move *move, struct places *ret)
{
    ret->near = host_look_uuid(&move->near, move->uuid, &ret->near_persistent);
    if (ret->near == DOMAIN_UNKNOWN && is_due(&move->near_due, NEAR_AGAIN)) {
        reach_near(move);
        ret->near = host_look_uuid(&move->near, move->uuid, &ret->near_persistent);
    }
    ret->far = host_look_uuid(&move->far, move->uuid, &ret->far_persistent);
    if (ret->far == DOMAIN_UNKNOWN && is_due(&move->far_due, FAR_AGAIN)) {
        reach_far(move);
        ret->far = host_look_uuid(&move->far, move->uuid, &ret->far_persistent);
    }
}
