/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What vmferryctl's options are for libvirt, and what must not be asked of it. Pure. */

#include "ctl/arguments.h"
#include "ctl/libvirt/library.h"

/* What is known of both ends: versions are 1000000 × major + 1000 × minor + release. */
struct plan_ends {
    bool persistent; /* the domain, at the source */
    bool paused;     /* the domain stands still: libvirt moves such a one in pre-copy only */
    bool p2p;        /* the source's libvirtd talks to the other one by itself */
    unsigned long near_qemu, far_qemu, far_libvirt;
};

/* Of VIR_MIGRATE_*. */
unsigned plan_flags(const struct arguments *a, const struct plan_ends *ends);

/* -1 with a trouble for what would lose the guest, or end the other host's libvirtd. */
int plan_check(const struct arguments *a, const char *vm, const struct plan_ends *ends,
               struct trouble *trouble);

/* Versions of libvirt at the destination, and of QEMU at either end. */
bool plan_crashes_on_resume(unsigned long libvirt);
bool plan_loses_multifd_postcopy(unsigned long qemu);

/* MiB/s, which is what libvirt counts in; never 0 where a limit is wanted. */
unsigned long long plan_bandwidth(uint64_t bytes);

/* Splits "vda,vdb" into ret, at most max; returns how many there are. Writes to text. */
unsigned plan_disks(char *text, const char **ret, unsigned max);

/* What can be done about an error of libvirt's: a sentence; "" where it was cancelled. */
const char *plan_remedy(int code, const char *words);

/* Whether libvirt refuses this user. */
bool plan_is_denied(int code);

/* Whether libvirt says that it was told to end it. */
bool plan_is_cancelled(int code);
