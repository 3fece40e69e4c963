/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Who may do what. Root may do everything, and so may the user as whom the broker runs; an owner manages
 * their own migrations. On the system bus polkit is asked about all other users, who may do nothing on other
 * buses. The subject of the question is fixed beforehand, and held against the call again after the answer
 * (subject_check()).
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-bus.h>

#include "broker/bus/subject.h"

struct polkit {
    sd_bus *bus;          /* borrowed */
    bool there;           /* it is asked: on the system bus */
    uint64_t n_questions; /* so that each has a name of its own */
};

/* What a caller wants, for polkit and for people. */
struct authorization {
    struct subject subject;
    uid_t uid;
    bool supplies;    /* the question is whether the owner may go elsewhere than to the endpoints */
    bool interactive; /* the user may be asked for a password */
    char cancellation[24];
};

/*
 * Above 0: this uid may. 0: polkit has to be asked; may_ask_user: and it may ask the user for a password. Or
 * negative with error set: this uid may not.
 */
int authorize_decide(const struct polkit *polkit, const struct subject *subject, uid_t uid, bool may_ask_user,
                     struct authorization *ret, sd_bus_error *error);

/*
 * Asks polkit about the caller of this unique name: the answer goes to handler, or within a bounded time the
 * error that comes in its place.
 */
int authorize_ask(struct polkit *polkit, struct authorization *authorization, const char *sender,
                  sd_bus_message_handler_t handler, void *userdata, sd_bus_slot **ret);

/* What polkit has answered: ≥ 0, or negative with error set. */
int authorize_answer(const struct authorization *authorization, sd_bus_message *reply, sd_bus_error *error);

/* The answer is of no use any more: what the user may see of the question goes. */
void authorize_cancel(struct polkit *polkit, const struct authorization *authorization);
