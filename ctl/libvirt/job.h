/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* libvirt's one call that is the whole migration, in its thread, and what libvirt tells of it meanwhile. */

#include "ctl/libvirt/library.h"
#include "ctl/libvirt/thread.h"

#define JOB_DISKS_MAX 16

/* What it is to do. What it points to is borrowed until job_free(), or for ever where that leaves the call to
 * itself. */
struct job_order {
    const struct libvirt *libvirt;
    virDomainPtr domain;
    const char *far_uri;   /* p2p: of the destination, as the source's libvirtd reaches it; NULL: */
    virConnectPtr far;     /* our own connection to it */
    const char *uri;       /* of QEMU's memory: unix://PATH */
    const char *disks_uri; /* the same for its disks; NULL: none */
    const char *name;      /* the domain's at the destination; NULL: the same */
    const char *disks[JOB_DISKS_MAX];
    unsigned n_disks; /* 0: all that are not shared */
    unsigned flags, parallel;
    unsigned long long bandwidth; /* MiB/s; 0: no limit */
};

struct job;

/* Begins it. 0, and job_free() is the caller's; or -1 with a trouble. */
int job_begin(struct ctl *ctl, const struct job_order *order, struct job **ret, struct trouble *trouble);

bool job_is_over(const struct job *job);

/* When it is over: VIR_ERR_OK, or libvirt's code; its words, "" for none, valid until job_free(). */
int job_code(const struct job *job);
const char *job_words(const struct job *job);

/* NULL: nothing. One that is not over is left to itself. */
void job_free(struct job *job);

/* All zero where there is nothing to tell. */
struct job_stats {
    bool active;
    uint64_t total, remaining, processed; /* bytes of memory */
    uint64_t passes, dirty;               /* dirty: bytes/s */
    uint64_t disk_total, disk_remaining;
    uint64_t elapsed_msec, downtime_msec;
};

/* completed: of the last one that came to its end. false: libvirt tells nothing. */
bool job_read(const struct libvirt *libvirt, virDomainPtr domain, bool completed, struct job_stats *ret);
