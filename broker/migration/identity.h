/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Which migration it is and how it stands: what texts, logs and the registry say of it. */

#include <stdint.h>
#include <sys/types.h>

#include "broker/helpers/process.h"
#include "common/error.h"
#include "common/message.h"

struct identity {
    enum message_role role;
    uint64_t id;
    char id_text[17];
    char *vm;                   /* owned */
    uid_t uid;                  /* of the call that made it */
    uint64_t started;           /* µs, CLOCK_REALTIME */
    enum message_state state;   /* registry_set_state() only */
    enum vf_error error;        /* why it ended, or is interrupted */
    char unit[HELPER_UNIT_MAX]; /* of its helper, known beyond its end; "": none, or not known yet */
};

/* A waiting migration, made now. identity_clear() in any case. 0 or a negative errno. */
int identity_init(struct identity *identity, enum message_role role, uint64_t id, const char *vm, uid_t uid);
void identity_clear(struct identity *identity);

/* Static texts. */
const char *role_text(enum message_role role);
const char *state_text(enum message_state state);
