/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Who may do what. Root may do everything, and so may the user as whom the broker runs; an owner manages his
 * own migrations. On the system bus polkit is asked about all others, who on other buses may do nothing. What
 * is asked is fixed beforehand, and what it is about is held against that again afterwards.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-bus.h>

#include "broker/net/ticket.h"
#include "common/address.h"

#define VM_MAX 255 /* bytes of a VM's name */

struct manager;

enum action {
    ACTION_PREPARE, /* PrepareIncoming */
    ACTION_START,   /* StartOutgoing */
    ACTION_MANAGE,  /* whatever is done to a migration that is there */
};

/* What a caller wants, for polkit and for people. */
struct authorization {
    enum action action;
    uid_t uid;
    char vm[VM_MAX + 1];
    char peer[TICKET_ENDPOINTS_MAX *
              ADDRESS_TEXT_MAX]; /* the other side's endpoints, as far as they are known */
    const char *role;            /* static */
    /* ACTION_MANAGE: which migration it is. A path and an id can come again, together with these they cannot.
     */
    char id_text[17];
    uid_t owner;
    uint64_t started;
    bool interactive; /* the user may be asked for a password */
    char cancellation[24];
};

/*
 * Reads what m, a call of this uid, is about. Above 0: he may. 0: polkit has to be asked. Or negative with
 * error set: he may not, or there is no such migration. Leaves m rewound.
 */
int authorize_decide(struct manager *manager, sd_bus_message *m, enum action action, uid_t uid,
                     struct authorization *ret, sd_bus_error *error);

/*
 * Asks polkit about the caller of this unique name: the answer goes to handler, or within a bounded time the
 * error that comes in its place.
 */
int authorize_ask(struct manager *manager, struct authorization *authorization, const char *sender,
                  sd_bus_message_handler_t handler, void *userdata, sd_bus_slot **ret);

/* What polkit has answered: ≥ 0, or negative with error set. */
int authorize_answer(const struct authorization *authorization, sd_bus_message *reply, sd_bus_error *error);

/* After a yes: whether m is still about what was asked. ≥ 0, or negative with error set. */
int authorize_again(struct manager *manager, sd_bus_message *m, const struct authorization *authorization,
                    sd_bus_error *error);

/* Nobody waits for the answer any more: what the user may see of the question goes. */
void authorize_cancel(struct manager *manager, const struct authorization *authorization);
