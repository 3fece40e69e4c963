/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/bus/find.h"

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

/* What is looked for, and by which user. */
struct choice {
    const char *text, *role; /* role: NULL, either */
    uid_t caller, qemu;
};

/* Moves those that test() holds for to the front; returns how many. */
static size_t keep(struct found *all, size_t n, const struct choice *choice,
                   bool (*test)(const struct found *found, const struct choice *choice))
{
    size_t kept = 0;

    for (size_t i = 0; i < n; i++)
        if (test(&all[i], choice)) {
            struct found one = all[i];

            /* In their order, and so that no other one is lost. */
            memmove(&all[kept + 1], &all[kept], (i - kept) * sizeof(*all));
            all[kept++] = one;
        }
    return kept;
}

static bool has_id(const struct found *found, const struct choice *choice)
{
    return names(found, choice->text) && (!choice->role || strcmp(found->role, choice->role) == 0);
}

static bool has_name(const struct found *found, const struct choice *choice)
{
    return strcmp(found->vm, choice->text) == 0 &&
           (!choice->role || (strcmp(found->role, choice->role) == 0 && !finished(found)));
}

static bool is_own(const struct found *found, const struct choice *choice)
{
    return found->uid == choice->caller;
}

static bool is_usable(const struct found *found, const struct choice *choice)
{
    return is_own(found, choice) || (choice->caller == 0 && found->uid == choice->qemu);
}

static bool is_running(const struct found *found, const struct choice *choice)
{
    return !finished(found);
}

/* "incoming/0123456789abcdef (of user 1000, waiting)", and so on: which they are, for a message. */
static char *describe(const struct found *found, size_t n)
{
    enum { SHOWN = 8 };
    char *text = NULL;
    size_t size;
    FILE *file = open_memstream(&text, &size);

    if (!file)
        return NULL;
    for (size_t i = 0; i < n && i < SHOWN; i++)
        fprintf(file, "%s%s/%s (of user %u, %s)",
                i == 0       ? ""
                : i + 1 == n ? " or "
                             : ", ",
                found[i].role, found[i].id, (unsigned)found[i].uid, found[i].state);
    if (n > SHOWN)
        fprintf(file, " or %zu others", n - SHOWN);
    fclose(file);
    return text;
}

static bool is_id_form(const char *text)
{
    const char *slash = strchr(text, '/');

    return is_id(slash ? slash + 1 : text);
}

int find_named(struct side *side, const char *text, struct found **ret, size_t *ret_n,
               struct trouble *trouble)
{
    const struct choice choice = {.text = text, .caller = side->uid};
    _cleanup_free_ struct found *all = NULL;
    _cleanup_free_ char *others = NULL;
    size_t n = 0, named, own, running;

    if (find_all(side, &all, &n, trouble) < 0)
        return -1;
    own = is_id_form(text) ? keep(all, n, &choice, has_id) : 0;
    if (own == 0) {
        named = keep(all, n, &choice, has_name);
        own = keep(all, named, &choice, is_own);
        if (named > 0 && own == 0) {
            others = describe(all, named);
            return trouble_set(
                trouble, STATUS_FAILED,
                "There is no migration of VM '%s'%s that is yours, but one of another user: %s. "
                "Name it by its id.",
                text, side->where, others ? others : "");
        }
        running = keep(all, own, &choice, is_running);
        if (running == 0 && own > 0)
            all[0] = all[own - 1]; /* the newest one */
        own = running > 0 ? running : own > 0;
    }
    if (own == 0)
        return trouble_set(
            trouble, STATUS_FAILED,
            "There is no migration, and no VM with one, of the name '%s'%s. 'vmferryctl list' shows those "
            "that are there.",
            text, side->where);
    *ret = all;
    *ret_n = own;
    all = NULL;
    return 0;
}

static int cannot_tell(const char *text, const struct found *found, size_t n, struct trouble *trouble)
{
    _cleanup_free_ char *which = describe(found, n);

    return trouble_set(trouble, STATUS_USAGE, "'%s' can mean %s. Say which.", text,
                       which ? which : "several");
}

int find_one(struct side *side, const char *text, struct found *ret, struct trouble *trouble)
{
    _cleanup_free_ struct found *found = NULL;
    size_t n = 0;

    if (find_named(side, text, &found, &n, trouble) < 0)
        return -1;
    if (n > 1)
        return cannot_tell(text, found, n, trouble);
    *ret = found[0];
    return 0;
}

/* The one of this id, which must be there, go on, and be usable. */
static int find_running_id(struct side *side, const struct choice *choice, const struct found *found,
                           size_t n, struct found *ret, struct trouble *trouble)
{
    if (n == 0)
        return trouble_set(trouble, STATUS_FAILED,
                           "There is no %s migration %s%s any more. Name the VM, to go on with a new one.",
                           choice->role, choice->text, side->where);
    if (!is_usable(&found[0], choice))
        return trouble_set(trouble, STATUS_DENIED,
                           "Migration %s/%s of VM '%s'%s is of user %u: QEMU is not told to use a socket of "
                           "another user.",
                           found[0].role, found[0].id, found[0].vm, side->where, (unsigned)found[0].uid);
    if (finished(&found[0]))
        return trouble_set(trouble, STATUS_FAILED,
                           "Migration %s/%s%s has ended. Name the VM, to go on with a new one.",
                           found[0].role, found[0].id, side->where);
    *ret = found[0];
    return 1;
}

int find_running(struct side *side, const char *text, const char *role, uid_t qemu, struct found *ret,
                 struct trouble *trouble)
{
    const struct choice choice = {.text = text, .role = role, .caller = side->uid, .qemu = qemu};
    _cleanup_free_ struct found *all = NULL;
    _cleanup_free_ char *others = NULL;
    size_t n = 0, named, usable;

    if (find_all(side, &all, &n, trouble) < 0)
        return -1;
    named = is_id_form(text) ? keep(all, n, &choice, has_id) : 0;
    if (named > 0)
        return find_running_id(side, &choice, all, named, ret, trouble);
    named = keep(all, n, &choice, has_name);
    usable = keep(all, named, &choice, is_usable);
    if (usable > 1)
        return cannot_tell(text, all, usable, trouble);
    if (usable == 1) {
        *ret = all[0];
        return 1;
    }
    if (is_id_form(text))
        return find_running_id(side, &choice, all, 0, ret, trouble);
    if (named > 0) {
        others = describe(all, named);
        ctl_say(side->ctl, "VM '%s'%s has a migration of another user, which is not used: %s.", text,
                side->where, others ? others : "");
    }
    return 0;
}
