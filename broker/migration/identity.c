/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/identity.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"

int identity_init(struct identity *identity, enum message_role role, uint64_t id, uint32_t number,
                  const char *vm, uid_t uid)
{
    *identity =
        (struct identity){.role = role, .id = id, .number = number, .uid = uid, .started = wall_now()};
    snprintf(identity->id_text, sizeof(identity->id_text), "%016" PRIx64, id);
    if (number == 0)
        snprintf(identity->key, sizeof(identity->key), "%s", identity->id_text);
    else
        snprintf(identity->key, sizeof(identity->key), "%s_%" PRIu32, identity->id_text, number);
    identity->vm = strdup(vm);
    return identity->vm ? 0 : -ENOMEM;
}

void identity_clear(struct identity *identity)
{
    free(identity->vm);
    identity->vm = NULL;
}

bool identity_read_key(const char *text, char end, uint64_t *ret_id, uint32_t *ret_number)
{
    const char *p = text + 16;
    uint32_t number = 0;

    if (strspn(text, "0123456789abcdef") != 16)
        return false;
    if (*p == '_') {
        size_t n = strspn(++p, "0123456789");

        if (n == 0 || n > 9 || *p == '0') /* one spelling for each */
            return false;
        number = (uint32_t)strtoul(p, NULL, 10);
        p += n;
    }
    if (*p != end)
        return false;
    *ret_id = strtoull(text, NULL, 16);
    *ret_number = number;
    return true;
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
