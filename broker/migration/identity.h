/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Which migration it is and how it stands: what texts, logs and the registry say of it. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "broker/helpers/process.h"
#include "common/error.h"
#include "common/message.h"

/* "ID", or "ID_NUMBER". */
#define IDENTITY_KEY_MAX 32

struct identity {
    enum message_role role;
    uint64_t id;
    char id_text[17];
    uint32_t number; /* 0, unless another one of this role has the same id: whose ticket it is from said so */
    char key[IDENTITY_KEY_MAX]; /* the id, and the number unless that is 0: what is named after it alone */
    char *vm;                   /* owned */
    uid_t uid;                  /* of the call that made it */
    uint64_t started;           /* µs, CLOCK_REALTIME */
    enum message_state state;   /* registry_set_state() only */
    enum vf_error error;        /* why it ended, or is interrupted */
    char unit[HELPER_UNIT_MAX]; /* of its helper, known beyond its end; "": none, or not known yet */
};

/* A waiting migration, made now; copies vm. identity_clear() in any case. 0 or a negative errno. */
int identity_init(struct identity *identity, enum message_role role, uint64_t id, uint32_t number,
                  const char *vm, uid_t uid);
void identity_clear(struct identity *identity);

/* Reads the key of an identity, up to end (a character, or '\0'). false: it is none. */
bool identity_read_key(const char *text, char end, uint64_t *ret_id, uint32_t *ret_number);

/* Static texts. */
const char *role_text(enum message_role role);
const char *state_text(enum message_state state);
