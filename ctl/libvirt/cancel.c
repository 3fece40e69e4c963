/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/libvirt/cancel.h"

#include <string.h>

#include "common/cleanup.h"
#include "ctl/bus/record.h"
#include "ctl/libvirt/host.h"
#include "ctl/libvirt/job.h"
#include "ctl/shell.h"

#define ABORT_WAIT (10 * SECOND)

/* The libvirt of the host whose broker it is. */
static int open_host(const struct side *side, struct host *ret, struct trouble *trouble)
{
    struct ctl *ctl = side->ctl;

    if (side->host && !ctl->arguments.connect)
        return host_open_by_ssh(ctl, side->host, side->where, ret, trouble);
    if (ctl->arguments.connect)
        return host_open(ctl, ctl->arguments.connect, side->where, ret, trouble);
    return host_open_here(ctl, side->where, ret, trouble);
}

static int refuse_postcopy(const struct found *found, struct trouble *trouble)
{
    return trouble_set(
        trouble, STATUS_FAILED,
        "VM '%s' is in post-copy: cancelling migration %s can lose the guest. Let it end, or recover "
        "it (vmferryctl migrate … --resume). --force cancels all the same.",
        found->vm, found->id);
}

/* ---- At the source ---- */

static int abort_job(const struct host *host, virDomainPtr domain, const struct found *found,
                     struct trouble *trouble)
{
    const struct libvirt *libvirt = host->libvirt;
    enum domain_state state = domain_look(libvirt, domain);
    struct job_stats stats;

    if (state == DOMAIN_PAUSED_POSTCOPY || state == DOMAIN_PAUSED_POSTCOPY_FAILED)
        return refuse_postcopy(found, trouble);
    if (state == DOMAIN_UNKNOWN)
        return trouble_set(
            trouble, STATUS_FAILED,
            "Cannot cancel migration %s: whether VM '%s' is in post-copy libvirt does not tell: %s.",
            found->id, found->vm, libvirt_words(libvirt));
    job_read(libvirt, domain, false, &stats);
    if (!stats.active)
        return 0;
    if (libvirt->virDomainAbortJob(domain) < 0)
        return trouble_set(trouble, STATUS_FAILED, "Cannot cancel migration %s of VM '%s'. libvirt says: %s.",
                           found->id, found->vm, libvirt_words(libvirt));
    /* The tunnel has to carry libvirt's own words about it to the other host. */
    for (uint64_t end = ctl_now() + ABORT_WAIT; ctl_now() < end && host->ctl->interrupts == 0;) {
        job_read(libvirt, domain, false, &stats);
        if (!stats.active)
            break;
        if (ctl_turn(host->ctl, SECOND / 20, trouble) < 0)
            return -1;
    }
    return 1;
}

static int cancel_at_source(const struct host *host, const struct found *found, struct trouble *trouble)
{
    virDomainPtr domain = host_find(host, found->vm, trouble);
    int r;

    if (!domain)
        return -1;
    r = abort_job(host, domain, found, trouble);
    host->libvirt->virDomainFree(domain);
    return r;
}

/* ---- At the destination ---- */

/*
 * Here libvirt cannot end it ("cannot abort incoming migration"), and to close the tunnel instead would be a
 * guess: the source may begin post-copy in that moment, which loses the guest, or hand it over, after which
 * it would run on both hosts. Only where nothing of the VM is here is there nothing to lose.
 */
static int cancel_at_destination(struct side *side, const struct host *host, const struct found *found,
                                 struct trouble *trouble)
{
    _cleanup_json_ json_object *record = NULL;
    enum domain_state state = host_look(host, found->vm, NULL);
    char command[SHELL_COMMAND_MAX], quoted[SHELL_COMMAND_MAX];

    switch (state) {
    case DOMAIN_NONE:
    case DOMAIN_OFF:
        return 0;
    case DOMAIN_RUNS_POSTCOPY:
    case DOMAIN_PAUSED_POSTCOPY:
    case DOMAIN_PAUSED_POSTCOPY_FAILED:
        return refuse_postcopy(found, trouble);
    case DOMAIN_RUNS:
        return trouble_set(trouble, STATUS_FAILED,
                           "It is too late to cancel migration %s: VM '%s' runs here already.", found->id,
                           found->vm);
    default:
        break;
    }
    if (record_read(side, found->path, MIGRATION_INTERFACE, &record, trouble) < 0)
        return -1;
    return trouble_set(
        trouble, STATUS_FAILED,
        "VM '%s' is on its way here, and only libvirt at the source can cancel that for sure. Nothing is "
        "cancelled. At the source (%s): %s, or virsh domjobabort %s. --force ends the tunnel: that can "
        "lose the guest if post-copy begins, or let it run on both hosts if it is just handed over.",
        found->vm, record_text(record, "Peer")[0] ? record_text(record, "Peer") : "not connected",
        shell_vmferryctl("cancel", found->id, "", command), shell_word(found->vm, quoted));
}

int libvirt_cancel(struct side *side, const struct found *found, struct trouble *trouble)
{
    struct host host;
    int r;

    if (open_host(side, &host, trouble) < 0)
        return -1;
    r = strcmp(found->role, "outgoing") == 0 ? cancel_at_source(&host, found, trouble)
                                             : cancel_at_destination(side, &host, found, trouble);
    host_close(&host);
    return r;
}
