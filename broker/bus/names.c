/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/bus/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void object_path(const struct identity *identity, char ret[static OBJECT_PATH_MAX])
{
    snprintf(ret, OBJECT_PATH_MAX, BROKER_PATH "/%s/%s", role_text(identity->role), identity->key);
}

struct entry *object_find(const struct registry *registry, const char *path)
{
    const char *slash = strrchr(path, '/');
    char found[OBJECT_PATH_MAX];
    uint32_t number;
    uint64_t id;

    if (!slash || !identity_read_key(slash + 1, '\0', &id, &number))
        return NULL;
    for (enum message_role role = ROLE_INCOMING; role <= ROLE_OUTGOING; role++) {
        struct entry *entry = registry_find(registry, role, id, number);

        if (!entry)
            continue;
        object_path(&entry->identity, found);
        if (strcmp(found, path) == 0)
            return entry;
    }
    return NULL;
}
