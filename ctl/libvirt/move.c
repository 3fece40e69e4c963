/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/libvirt/move.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "ctl/libvirt/ending.h"
#include "ctl/libvirt/places.h"
#include "ctl/libvirt/view.h"
#include "ctl/libvirt/way.h"

#define LOOK       (SECOND / 4)
#define AUTO_AFTER 4 /* the pass over the memory with which it is clear that pre-copy does not end */

/* ---- While it runs ---- */

static bool postcopy_is_due(const struct move *move)
{
    const struct arguments *a = &move->ctl->arguments;

    if (move->stage != MOVE_RUNS || !move->stats.active || move->stats.processed == 0)
        return false;
    switch (a->postcopy) {
    case POSTCOPY_NOW:
        return true;
    case POSTCOPY_AFTER:
        return ctl_now() >= move->since + a->postcopy_after;
    case POSTCOPY_AUTO:
        return move->stats.passes >= AUTO_AFTER;
    default:
        return false;
    }
}

/* A VM that is paused goes without: post-copy would let it run. */
static void start_postcopy(struct move *move)
{
    const struct libvirt *libvirt = move->near.libvirt;

    if (move->near_state != DOMAIN_RUNS)
        return;
    /* From the moment it is asked QEMU may begin: what would cancel must not come after. */
    move->stage = MOVE_POSTCOPY;
    if (libvirt->virDomainMigrateStartPostCopy(move->domain, 0) >= 0)
        return;
    move->stage = MOVE_RUNS; /* too early or too late: it is tried again, or has come to its end */
}

/* Where libvirt has not begun yet there is nothing to end: it is tried again. */
static void cancel(struct move *move)
{
    const struct libvirt *libvirt = move->near.libvirt;

    if (libvirt->virDomainAbortJob(move->domain) >= 0) {
        meter_clear(&move->meter);
        ctl_say(move->ctl, "Cancelling …");
        move->stage = MOVE_CANCELLED;
    } else if (strstr(libvirt_words(libvirt), "post-copy")) {
        move->stage = MOVE_POSTCOPY;
    }
}

/* The source's helper goes on waiting for its peer. It is ended, so that QEMU and libvirt notice. */
static void end_broken_tunnel(struct move *move)
{
    meter_clear(&move->meter);
    ctl_say(move->ctl, "%s: the tunnel is broken, for its half at the destination has ended.", move->vm);
    tunnel_cancel(&move->tunnel);
}

static void look(struct move *move)
{
    _cleanup_json_ json_object *record = NULL;

    move_read_stats(move);
    move->near_state = domain_look(move->near.libvirt, move->domain);
    if (move->near_state == DOMAIN_PAUSED_POSTCOPY)
        move->stage = MOVE_POSTCOPY;
    if (tunnel_read(&move->tunnel, &record, NULL) < 0)
        record = json_object_new_object();
    view_move(move, record);
    way_look_far(move);
    if (strcmp(record_text(record, "State"), "interrupted") != 0)
        return;
    if (move->far_broken)
        end_broken_tunnel(move);
    else if (move->peers)
        peers_mend(move->peers);
}

static int pause_for(struct move *move, struct trouble *trouble)
{
    unsigned interrupts = move->ctl->interrupts;

    for (uint64_t now = ctl_now(), end = now + LOOK; now < end; now = ctl_now()) {
        if (move->ctl->interrupts > interrupts || move->ctl->resized || job_is_over(move->job))
            break;
        if (ctl_turn(move->ctl, end - now, trouble) < 0)
            return -1;
    }
    return 0;
}

static int run(struct move *move, struct trouble *trouble)
{
    unsigned heard = 0;

    while (!job_is_over(move->job)) {
        look(move);
        if (postcopy_is_due(move))
            start_postcopy(move);
        if (move->ctl->interrupts > 0 && move->stage == MOVE_RUNS)
            cancel(move);
        if (move->ctl->interrupts > heard) {
            heard = move->ctl->interrupts;
            if (move->stage == MOVE_POSTCOPY || heard > 2)
                return ending_detached(move, trouble);
        }
        if (pause_for(move, trouble) < 0)
            return -1;
    }
    return ending_of(move, trouble);
}

/* ---- Its beginning ---- */

/* Looks at the domain, which must be one that can go. */
static int find_domain(struct move *move, struct trouble *trouble)
{
    const struct arguments *a = &move->ctl->arguments;
    const struct libvirt *libvirt = move->near.libvirt;
    int autostart;

    move->domain = host_find(&move->near, move->name, trouble);
    if (!move->domain)
        return -1;
    if (libvirt->virDomainGetUUIDString(move->domain, move->uuid) < 0)
        return trouble_set(trouble, STATUS_FAILED, "libvirt does not tell the UUID of '%s': %s.", move->name,
                           libvirt_words(libvirt));
    move->vm = strdup(libvirt->virDomainGetName(move->domain));
    if (!move->vm)
        return trouble_no_memory(trouble);
    move->far_name = a->name ? a->name : move->vm;
    move->persistent = libvirt->virDomainIsPersistent(move->domain) > 0;
    if (libvirt->virDomainGetAutostart(move->domain, &autostart) >= 0)
        move->autostart = autostart != 0;
    move->near_state = domain_look(libvirt, move->domain);
    if (a->resume && move->near_state != DOMAIN_PAUSED_POSTCOPY &&
        move->near_state != DOMAIN_PAUSED_POSTCOPY_FAILED)
        return trouble_set(trouble, STATUS_FAILED,
                           "VM '%s' %s at the source: there is no post-copy to resume.", move->vm,
                           domain_state_text(move->near_state));
    if (!a->resume && move->near_state != DOMAIN_RUNS && move->near_state != DOMAIN_PAUSED)
        return trouble_set(
            trouble, STATUS_FAILED, "VM '%s' %s: only one that runs, or is paused, can migrate live.%s",
            move->vm, domain_state_text(move->near_state),
            move->near_state == DOMAIN_PAUSED_POSTCOPY_FAILED ? " Recover it with --resume." : "");
    return 0;
}

/* The source's libvirt, twice, and the domain. */
static int open_source(struct move *move, struct trouble *trouble)
{
    if (places_open_near(move, &move->near, trouble) < 0 || find_domain(move, trouble) < 0 ||
        places_open_near(move, &move->job_near, trouble) < 0)
        return -1;
    move->job_domain = host_find(&move->job_near, move->vm, trouble);
    return move->job_domain ? 0 : -1;
}

static int begin(struct move *move, struct trouble *trouble)
{
    const struct arguments *a = &move->ctl->arguments;
    _cleanup_free_ char *disks = NULL;
    char uri[URI_MAX], disks_uri[URI_MAX];
    _cleanup_json_ json_object *record = NULL;
    const struct plan_ends ends = {
        .persistent = move->persistent, .paused = move->near_state == DOMAIN_PAUSED, .p2p = move->p2p};
    struct job_order order = {.libvirt = move->near.libvirt,
                              .domain = move->job_domain,
                              .far_uri = move->p2p ? move->far_uri : NULL,
                              .far = move->far.connection,
                              .name = a->name,
                              .flags = plan_flags(a, &ends),
                              .parallel = (unsigned)a->multifd,
                              .bandwidth = plan_bandwidth(a->bandwidth)};

    if (tunnel_read(&move->tunnel, &record, trouble) < 0)
        return -1;
    order.uri = socket_uri(move->tunnel.socket, uri);
    if (a->disks) {
        order.disks_uri = socket_uri(record_socket(record, "disks"), disks_uri);
        disks = strdup(a->disks);
        order.n_disks = disks ? plan_disks(disks, order.disks, JOB_DISKS_MAX) : 0;
    }
    if (a->downtime_limit > 0)
        move->near.libvirt->virDomainMigrateSetMaxDowntime(move->domain, (a->downtime_limit + 999) / 1000, 0);
    meter_open(&move->meter, move->ctl);
    move->since = ctl_now();
    move->stage = a->resume ? MOVE_POSTCOPY : MOVE_RUNS;
    tunnel_news_begin(&move->far_tunnel, &move->far_news);
    return job_begin(move->ctl, &order, &move->job, trouble);
}

static int check_plan(const struct move *move, struct trouble *trouble)
{
    const struct plan_ends ends = {.near_qemu = move->near.qemu_version,
                                   .far_qemu = move->far.qemu_version,
                                   .far_libvirt = move->far.libvirt_version};

    return plan_check(&move->ctl->arguments, move->vm, &ends, trouble);
}

static void move_clear(struct move *move)
{
    bool left = move->job && !job_is_over(move->job); /* it uses the domain still */

    meter_clear(&move->meter);
    job_free(move->job);
    if (move->domain)
        move->near.libvirt->virDomainFree(move->domain);
    if (!left) {
        if (move->job_domain)
            move->near.libvirt->virDomainFree(move->job_domain);
        host_close(&move->job_near);
        host_close(&move->far);
    }
    host_close(&move->near);
    free(move->vm);
    door_close(move->door);
    remote_free(move->door_there);
    remote_free(move->supplier);
    peers_free(move->peers);
    tunnel_news_end(&move->far_news);
    tunnel_clear(&move->tunnel);
    tunnel_clear(&move->far_tunnel);
    side_close(&move->destination);
    side_close(&move->source);
}

/* The destination's libvirt, through the tunnel where its source is here: that costs no other ssh. */
static int open_far(struct move *move, struct trouble *trouble)
{
    const char *where = move->host ? move->destination.where : " at the destination";

    if (move->door)
        return host_open_through(move->ctl, move->door, where, &move->far, trouble);
    if (move->destination.host)
        return host_open_by_ssh(move->ctl, move->destination.host, where, &move->far, trouble);
    return host_open_here(move->ctl, where, &move->far, trouble);
}

static int go(struct move *move, const char *ticket, struct trouble *trouble)
{
    if (way_open(move, ticket, trouble) >= 0 && open_far(move, trouble) >= 0 &&
        check_plan(move, trouble) >= 0 && begin(move, trouble) >= 0)
        return run(move, trouble);
    host_close(&move->far); /* it may be a channel of the tunnel's */
    move->far.where = "";
    way_undo(move);
    return -1;
}

/* ---- The verbs ---- */

int libvirt_migrate(struct ctl *ctl, struct trouble *trouble)
{
    const struct arguments *a = &ctl->arguments;
    _cleanup_(move_clear) struct move move = {
        .ctl = ctl,
        .name = a->operands[0],
        .host = a->operands[1],
        /* libvirt resumes a post-copy well only where its client talks to both. */
        .p2p = !a->resume && !(a->rpc && strcmp(a->rpc, "ssh") == 0),
        .near.where = "",
        .far.where = ""};

    ctl->one_login = true;
    if (ctl_catch_signals(ctl, trouble) < 0 || side_open(ctl, &move.source, trouble) < 0 ||
        side_begin_host(ctl, move.host, &move.destination, trouble) < 0 || open_source(&move, trouble) < 0 ||
        side_finish_host(&move.destination, trouble) < 0)
        return -1;
    return go(&move, NULL, trouble);
}

int libvirt_send(struct ctl *ctl, const char *ticket, struct trouble *trouble)
{
    _cleanup_(move_clear) struct move move = {.ctl = ctl,
                                              .name = ctl->arguments.operands[0],
                                              .p2p = !ctl->arguments.resume,
                                              .near.where = "",
                                              .far.where = ""};

    if (ctl_catch_signals(ctl, trouble) < 0 || side_open(ctl, &move.source, trouble) < 0 ||
        open_source(&move, trouble) < 0)
        return -1;
    return go(&move, ticket, trouble);
}
