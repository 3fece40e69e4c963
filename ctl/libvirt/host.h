/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The libvirt of one host, and what it says of a domain. */

#include "ctl/libvirt/library.h"
#include "ctl/libvirt/socket.h"
#include "ctl/ssh/remote.h"

/* How a domain is, as far as a migration is concerned. */
enum domain_state {
    DOMAIN_UNKNOWN, /* libvirt does not answer */
    DOMAIN_NONE,    /* there is none of this name */
    DOMAIN_OFF,
    DOMAIN_RUNS,
    DOMAIN_RUNS_POSTCOPY, /* at the destination: not all of its memory is there */
    DOMAIN_PAUSED,
    DOMAIN_PAUSED_MIGRATION,       /* at the destination: it arrives; at the source: it is handed over */
    DOMAIN_PAUSED_POSTCOPY,        /* at the source: it runs at the destination */
    DOMAIN_PAUSED_POSTCOPY_FAILED, /* the connection was lost */
    DOMAIN_ELSE,
};

struct host {
    struct ctl *ctl;
    const struct libvirt *libvirt;
    const char *where; /* "", or " at HOST"; borrowed */
    char uri[URI_MAX];
    virConnectPtr connection;
    unsigned long libvirt_version, qemu_version; /* 1000000 × major + 1000 × minor + release */
    struct remote *link;                         /* where it goes by ssh */
};

/*
 * Connects to a URI as libvirt reads it. where as above. 0, and host_close() is the caller's; or -1 with a
 * trouble: then *ret is empty. The same holds for the next three.
 */
int host_open(struct ctl *ctl, const char *uri, const char *where, struct host *ret, struct trouble *trouble);

/* Connects to the libvirt of this host: the system's, or the user's with --user. */
int host_open_here(struct ctl *ctl, const char *where, struct host *ret, struct trouble *trouble);

/* To the libvirtd of another host, by 'ssh HOST vmferryctl stdio libvirt'. */
int host_open_by_ssh(struct ctl *ctl, const char *name, const char *where, struct host *ret,
                     struct trouble *trouble);

/* Through the stream 'libvirt' of a tunnel whose source is on this host, by an open door to it. */
int host_open_through(struct ctl *ctl, const struct door *door, const char *where, struct host *ret,
                      struct trouble *trouble);

/* Leaves it empty; safe on an empty one. */
void host_close(struct host *host);

/* A domain by its name, UUID or id, which is the caller's: virDomainFree(). NULL with a trouble. */
virDomainPtr host_find(const struct host *host, const char *text, struct trouble *trouble);

/*
 * Of the domain of this name, or with this UUID, which is the same one wherever it is and whatever its name
 * there. *ret_persistent, where it is not NULL: whether its definition stays.
 */
enum domain_state host_look(const struct host *host, const char *name, bool *ret_persistent);
enum domain_state host_look_uuid(const struct host *host, const char *uuid, bool *ret_persistent);
enum domain_state domain_look(const struct libvirt *libvirt, virDomainPtr domain);

/* For people: "runs", "is paused", … */
const char *domain_state_text(enum domain_state state);

/* The uid as which its QEMU runs, of its DAC label; false where it has none. */
bool domain_uid(const struct libvirt *libvirt, virDomainPtr domain, uid_t *ret);

/* "9.0.0" */
const char *version_text(unsigned long version, char ret[static 32]);
