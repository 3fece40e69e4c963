/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/bus/names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void object_path(const struct identity *identity, char ret[static OBJECT_PATH_MAX])
{
    snprintf(ret, OBJECT_PATH_MAX, BROKER_PATH "/%s/%s", role_text(identity->role), identity->id_text);
}

struct entry *object_find(const struct registry *registry, const char *path)
{
    const char *slash = strrchr(path, '/');
    uint64_t id = slash ? strtoull(slash + 1, NULL, 16) : 0; /* whatever it is: the whole path is compared */
    char found[OBJECT_PATH_MAX];

    for (enum message_role role = ROLE_INCOMING; role <= ROLE_OUTGOING; role++) {
        struct entry *entry = registry_find(registry, role, id);

        if (!entry)
            continue;
        object_path(&entry->identity, found);
        if (strcmp(found, path) == 0)
            return entry;
    }
    return NULL;
}
