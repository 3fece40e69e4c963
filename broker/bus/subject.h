/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a call is about: what it does, to which migration, of which VM. It is read before it is known who
 * calls. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-bus.h>

#include "broker/config/config.h"
#include "broker/migration/migration.h"
#include "broker/migration/registry.h"

#define VM_MAX 255 /* bytes of a VM's name */

enum action {
    ACTION_PREPARE, /* PrepareIncoming */
    ACTION_START,   /* StartOutgoing */
    ACTION_LIBVIRT, /* what polkit is asked about either, with a layout of libvirt's; no call is of this kind
                     */
    ACTION_MANAGE,  /* whatever is done to a migration that is there */
    ACTION_REPORT,  /* the same, but only the owner and root can know what is reported */
    ACTION_RELOAD,  /* of the broker itself, by root and its own user */
    ACTION_READ,    /* which every user may; but the answer depends on who asks */
};

struct subject {
    enum action action;
    enum message_role role;
    char vm[VM_MAX + 1];
    char peer[TICKET_ENDPOINTS_MAX * ADDRESS_TEXT_MAX]; /* the other side's endpoints, as far as known */
    bool unclear;  /* ACTION_START: not all of these endpoints are endpoints, or one has a blank in it */
    bool libvirt;  /* ACTION_PREPARE, ACTION_START: for a VM of libvirt's, by the option 'layout' */
    bool supplies; /* ACTION_MANAGE: brings a connection to a source that was permitted for its endpoints */
    /* ACTION_MANAGE: which migration it is. A path and an id can come again, together with these they cannot.
     */
    char id_text[17];
    uid_t owner;
    uint64_t started;
};

enum { SUBJECT_TEXT_MAX = VM_MAX + 128 };

/* Leaves m rewound. ≥ 0, or negative with error set. */
int subject_read(sd_bus_message *m, enum action action, const struct registry *registry,
                 const struct config *config, struct subject *ret, sd_bus_error *error);

/* Whether m is still about this. ≥ 0, or negative with error set. */
int subject_check(const struct subject *subject, sd_bus_message *m, const struct registry *registry,
                  sd_bus_error *error);

/* As it goes on after "uid 1000 may not". */
void subject_describe(const struct subject *subject, char ret[static SUBJECT_TEXT_MAX]);

/*
 * Reads the VM and (for ROLE_OUTGOING) the ticket, with which a call of PrepareIncoming or StartOutgoing
 * begins. ≥ 0, or negative with error set.
 */
int subject_read_call(sd_bus_message *m, enum message_role role, const char **ret_vm, const char **ret_ticket,
                      sd_bus_error *error);

/* The migration that a message is for; NULL with error set. */
struct migration *subject_find(const struct registry *registry, sd_bus_message *m, sd_bus_error *error);

/* The same, of which nothing is left to do where it is finished. */
struct migration *subject_find_running(const struct registry *registry, sd_bus_message *m,
                                       sd_bus_error *error);
