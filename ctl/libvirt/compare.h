/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a domain wants of a host, and what a host has, read of libvirt's XML. Pure. */

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#define COMPARE_DISKS_MAX 32

struct domain_disk {
    char target[32];       /* "vda" */
    char source[PATH_MAX]; /* its file or device; "" where it is on a network */
};

struct domain_needs {
    char type[16]; /* "kvm", "qemu" */
    char arch[32], machine[128], emulator[PATH_MAX];
    const char *cpu; /* <cpu>…</cpu> in the XML that was read; NULL: the domain has none */
    size_t cpu_size;
    struct domain_disk disks[COMPARE_DISKS_MAX]; /* writable, and not marked as shared */
    unsigned n_disks;
};

/* xml must outlive ret->cpu. false where it is no domain. */
bool compare_read_domain(const char *xml, struct domain_needs *ret);

/* Of a host's capabilities: its UUID. */
bool compare_read_host(const char *xml, char *ret, size_t size);

/* Of a storage pool: its directory. */
bool compare_read_pool(const char *xml, char *ret, size_t size);

/* The directory of a path, in ret; false for one without. */
bool compare_directory(const char *path, char *ret, size_t size);
