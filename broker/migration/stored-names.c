/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/migration/stored-names.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void stored_name(const struct identity *identity, char ret[static STORE_NAME_MAX], const char *format, ...)
{
    va_list args;
    int n = snprintf(ret, STORE_NAME_MAX, "%s-%s-", identity->role == ROLE_INCOMING ? "in" : "out",
                     identity->key);

    va_start(args, format);
    vsnprintf(ret + n, STORE_NAME_MAX - (size_t)n, format, args);
    va_end(args);
}

/* false for other names. */
static bool read_name(const char *text, size_t at, struct stored_name *ret)
{
    const char *key = strchr(text, '-');
    uint32_t of_id;
    uint64_t id;

    if (!key || (strncmp(text, "in-", 3) != 0 && strncmp(text, "out-", 4) != 0))
        return false;
    if (!identity_read_key(++key, '-', &id, &of_id))
        return false;
    *ret = (struct stored_name){
        .role = text[0] == 'i' ? ROLE_INCOMING : ROLE_OUTGOING, .id = id, .of_id = of_id, .at = at};
    snprintf(ret->text, sizeof(ret->text), "%s", text);
    ret->record = sscanf(strchr(key, '-') + 1, "state.%" SCNu32, &ret->number) == 1;
    return true;
}

static int compare_names(const void *a, const void *b)
{
    const struct stored_name *one = a, *other = b;

    if (one->role != other->role)
        return one->role < other->role ? -1 : 1;
    if (one->id != other->id)
        return one->id < other->id ? -1 : 1;
    if (one->of_id != other->of_id)
        return one->of_id < other->of_id ? -1 : 1;
    if (one->record != other->record)
        return one->record ? -1 : 1;
    if (one->number != other->number)
        return one->number > other->number ? -1 : 1;
    return one->at < other->at ? -1 : 1;
}

static int compare_groups(const void *a, const void *b)
{
    const struct stored_group *one = a, *other = b;

    return one->names->at < other->names->at ? -1 : 1;
}

struct stored_name *stored_names_sort(const struct store *store, size_t *ret_n)
{
    struct stored_name *names;
    size_t max = 0, at = 0;

    *ret_n = 0;
    for (const char *text = store_next(store, NULL); text; text = store_next(store, text))
        max++;
    names = calloc(max, sizeof(*names));
    if (!names)
        return NULL;
    for (const char *text = store_next(store, NULL); text && at < max; text = store_next(store, text))
        *ret_n += read_name(text, at++, &names[*ret_n]);
    qsort(names, *ret_n, sizeof(*names), compare_names);
    return names;
}

static bool same_migration(const struct stored_name *one, const struct stored_name *other)
{
    return one->role == other->role && one->id == other->id && one->of_id == other->of_id;
}

struct stored_group *stored_names_group(const struct stored_name *names, size_t n, size_t *ret_n)
{
    struct stored_group *groups = calloc(n, sizeof(*groups));

    *ret_n = 0;
    for (size_t i = 0, end; groups && i < n; i = end) {
        for (end = i + 1; end < n && same_migration(&names[i], &names[end]); end++)
            ;
        if (names[i].record)
            groups[(*ret_n)++] = (struct stored_group){&names[i], end - i};
    }
    if (groups)
        qsort(groups, *ret_n, sizeof(*groups), compare_groups);
    return groups;
}
