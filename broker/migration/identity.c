/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/identity.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

int identity_init(struct identity *identity, enum message_role role, uint64_t id, const char *vm, uid_t uid)
{
    *identity = (struct identity){.role = role, .id = id, .uid = uid, .started = wall_now()};
    snprintf(identity->id_text, sizeof(identity->id_text), "%016" PRIx64, id);
    identity->vm = strdup(vm);
    return identity->vm ? 0 : -ENOMEM;
}

void identity_clear(struct identity *identity)
{
    free(identity->vm);
    identity->vm = NULL;
}

const char *role_text(enum message_role role)
{
    return role == ROLE_INCOMING ? "incoming" : "outgoing";
}

const char *state_text(enum message_state state)
{
    static const char *const texts[STATE_MAX_] = {
        [STATE_WAITING] = "waiting",         [STATE_CONNECTED] = "connected", [STATE_ACTIVE] = "active",
        [STATE_INTERRUPTED] = "interrupted", [STATE_FINISHED] = "finished",
    };

    return texts[state];
}
