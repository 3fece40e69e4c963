/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How far the migration of a domain is; for the files of this folder. */

#include "ctl/bus/tunnel.h"
#include "ctl/drive/peers.h"
#include "ctl/libvirt/host.h"
#include "ctl/libvirt/job.h"
#include "ctl/libvirt/plan.h"
#include "ctl/libvirt/thread.h"
#include "ctl/terminal/meter.h"

enum move_stage {
    MOVE_RUNS,      /* as it was begun */
    MOVE_POSTCOPY,  /* post-copy was asked for: nothing is cancelled any more */
    MOVE_CANCELLED, /* libvirt was told to end it */
};

struct move {
    struct ctl *ctl;
    const char *name;                  /* as the user wrote it */
    char *vm;                          /* the domain's name at the source */
    char uuid[VIR_UUID_STRING_BUFLEN]; /* and what finds it on both hosts, whatever its name is there */
    const char *far_name;              /* and at the destination */
    const char *host;                  /* NULL for 'send' */
    bool p2p;                          /* the source's libvirtd drives it, and goes on without us */
    bool persistent, autostart;
    struct side source, destination; /* destination: empty for 'send' */
    struct host near, far;           /* far may be empty once it is lost */
    virDomainPtr domain;             /* NULL once libvirtd was restarted, and has it no more */
    uint64_t near_due, far_due;      /* CLOCK_MONOTONIC in µs: before, no lost libvirt is reached again */
    /* The same once more, for the job's thread alone: libvirt's library can lose the wake-up of a call that
     * another thread makes on a connection which waits for a reply, and then both wait for the end of the
     * migration. */
    struct host job_near;
    virDomainPtr job_domain;
    struct tunnel tunnel, far_tunnel;
    struct tunnel_news far_news;
    bool far_broken; /* the destination's half has failed, as when its helper was killed */
    bool found;      /* the tunnel was there */
    struct peers *peers;
    struct door *door;         /* to the stream 'libvirt', where the source is on this host */
    struct remote *door_there; /* the same where it is on another one */
    struct remote *supplier;   /* what brings the destination's libvirtd */
    char far_uri[URI_MAX];     /* of the destination, for the source's libvirtd */
    struct job *job;
    struct job_stats stats;
    bool began; /* libvirt has told of it once */
    enum move_stage stage;
    enum domain_state near_state;
    uint64_t since, reported; /* µs, CLOCK_MONOTONIC: when it began, and was reported last; 0: not yet */
    const char *phase;        /* that was reported */
    struct meter meter;
};
