/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "find.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/message.h"

static bool finished(const struct found *found)
{
    return strcmp(found->state, "finished") == 0;
}

/* Copies what fits, and all that a broker sends does; printable, for the broker may be hostile. */
#define COPY(to, from) message_text_set(to, sizeof(to), from)

static int read_all(sd_bus_message *m, struct found **ret, size_t *ret_n)
{
    _cleanup_free_ struct found *all = NULL;
    const char *id, *vm, *role, *state, *path;
    size_t n = 0;
    uint32_t uid;
    int r = sd_bus_message_enter_container(m, 'a', "(ssssuo)");

    while (r >= 0 && (r = sd_bus_message_read(m, "(ssssuo)", &id, &vm, &role, &state, &uid, &path)) > 0) {
        struct found *more = reallocarray(all, n + 1, sizeof(*all));

        if (!more)
            return -ENOMEM;
        all = more;
        COPY(all[n].id, id);
        COPY(all[n].vm, vm);
        COPY(all[n].role, role);
        COPY(all[n].state, state);
        COPY(all[n].path, path);
        all[n++].uid = uid;
    }
    if (r < 0)
        return r;
    *ret = all;
    *ret_n = n;
    all = NULL;
    return 0;
}

int find_all(struct side *side, struct found **ret, size_t *ret_n, struct trouble *trouble)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = NULL;
    int r;

    if (side_call(side, BROKER_PATH, BROKER_NAME, "ListMigrations", &reply, trouble,
                  "Cannot list the migrations", NULL) < 0)
        return -1;
    r = read_all(reply, ret, ret_n);
    return r < 0 ? trouble_set(trouble, STATUS_FAILED,
                               "Cannot list the migrations: the answer cannot be understood (%s).",
                               strerror(-r))
                 : 0;
}

static bool is_id(const char *text)
{
    return strlen(text) == 16 && strspn(text, "0123456789abcdef") == 16;
}

static bool names(const struct found *found, const char *text)
{
    size_t n = strlen(found->role);

    return strcmp(found->id, text) == 0 ||
           (strncmp(found->role, text, n) == 0 && text[n] == '/' && strcmp(found->id, text + n + 1) == 0);
}

/* Keeps those that are meant, at the front; returns how many. */
static size_t keep(struct found *all, size_t n, const char *text)
{
    const char *slash = strchr(text, '/');
    bool by_id = is_id(slash ? slash + 1 : text);
    size_t kept = 0, newest = n;

    for (size_t i = 0; i < n; i++)
        if (by_id && names(&all[i], text))
            all[kept++] = all[i];
    if (kept > 0)
        return kept;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(all[i].vm, text) != 0)
            continue;
        if (!finished(&all[i]))
            all[kept++] = all[i];
        else
            newest = i;
    }
    if (kept == 0 && newest < n)
        all[kept++] = all[newest];
    return kept;
}

int find_named(struct side *side, const char *text, struct found **ret, size_t *ret_n,
               struct trouble *trouble)
{
    _cleanup_free_ struct found *all = NULL;
    size_t n = 0;

    if (find_all(side, &all, &n, trouble) < 0)
        return -1;
    n = keep(all, n, text);
    if (n == 0)
        return trouble_set(
            trouble, STATUS_FAILED,
            "There is no migration, and no VM with one, of the name '%s'%s. 'vmferryctl list' shows those "
            "that are there.",
            text, side->where);
    *ret = all;
    *ret_n = n;
    all = NULL;
    return 0;
}

int find_one(struct side *side, const char *text, struct found *ret, struct trouble *trouble)
{
    _cleanup_free_ struct found *found = NULL;
    size_t n = 0;

    if (find_named(side, text, &found, &n, trouble) < 0)
        return -1;
    if (n > 1)
        return trouble_set(trouble, STATUS_USAGE, "'%s' can mean %s/%s or %s/%s. Say which.", text,
                           found[0].role, found[0].id, found[1].role, found[1].id);
    *ret = found[0];
    return 0;
}

int find_running(struct side *side, const char *vm, const char *role, struct found *ret,
                 struct trouble *trouble)
{
    _cleanup_free_ struct found *all = NULL;
    size_t n = 0;

    if (find_all(side, &all, &n, trouble) < 0)
        return -1;
    for (size_t i = 0; i < n; i++)
        if (strcmp(all[i].vm, vm) == 0 && strcmp(all[i].role, role) == 0 && !finished(&all[i])) {
            *ret = all[i];
            return 1;
        }
    return 0;
}
