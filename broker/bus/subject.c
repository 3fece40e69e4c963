/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/bus/subject.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "broker/bus/names.h"
#include "broker/bus/options.h"
#include "broker/errors.h"
#include "common/cleanup.h"

/* ---- A call of PrepareIncoming or StartOutgoing ---- */

static int check_vm(const char *vm, sd_bus_error *error)
{
    size_t n = strlen(vm);

    if (n == 0)
        return error_invalid(error, "The VM's name is empty.");
    if (n > VM_MAX)
        return error_invalid(error, "The VM's name has %zu bytes; %d are allowed.", n, VM_MAX);
    if (!message_text_ok(vm, n + 1))
        return error_invalid(error, "The VM's name holds control or format characters, or is not UTF-8.");
    return 0;
}

int subject_read_call(sd_bus_message *m, enum message_role role, const char **ret_vm, const char **ret_ticket,
                      sd_bus_error *error)
{
    int r = sd_bus_message_read(m, "s", ret_vm);

    if (r >= 0 && role == ROLE_OUTGOING)
        r = sd_bus_message_read(m, "s", ret_ticket);
    return r < 0 ? r : check_vm(*ret_vm, error);
}

/* In a list with blanks between them it would look like something else. */
static bool is_unclear(const char *text)
{
    struct endpoint endpoint;

    return endpoint_parse(text, &endpoint) || strpbrk(text, " \t");
}

/* The endpoints that StartOutgoing would dial: those of its option, or of its ticket. */
static void read_peer(const char *text, const struct options *options, struct subject *ret)
{
    struct ticket ticket;
    size_t n = 0;

    if (options->n_endpoints > 0) {
        snprintf(ret->peer, sizeof(ret->peer), "%s", options->endpoints[0]);
        ret->unclear = is_unclear(options->endpoints[0]);
        return;
    }
    if (ticket_decode(text, &ticket) != TICKET_OK)
        return; /* nothing will come of it */
    for (uint32_t i = 0; i < ticket.n_endpoints; i++) {
        n += (size_t)snprintf(ret->peer + n, sizeof(ret->peer) - n, "%s%s", n > 0 ? " " : "",
                              ticket.endpoints[i]);
        ret->unclear = ret->unclear || is_unclear(ticket.endpoints[i]);
    }
    ticket_clear(&ticket);
}

static int read_new(sd_bus_message *m, const struct config *config, struct subject *ret, sd_bus_error *error)
{
    _cleanup_(options_clear) struct options options = {0};
    const char *vm, *ticket;
    int r;

    ret->role = ret->action == ACTION_PREPARE ? ROLE_INCOMING : ROLE_OUTGOING;
    r = subject_read_call(m, ret->role, &vm, &ticket, error);
    if (r < 0)
        return r;
    snprintf(ret->vm, sizeof(ret->vm), "%s", vm);
    r = options_parse(m, ret->role, config, &options, error);
    if (r < 0)
        return r;
    ret->libvirt = options.layout[0] != '\0';
    if (ret->role == ROLE_OUTGOING)
        read_peer(ticket, &options, ret);
    return 0;
}

/* ---- A call for a migration that is there ---- */

struct migration *subject_find(const struct registry *registry, sd_bus_message *m, sd_bus_error *error)
{
    const char *path = sd_bus_message_get_path(m);
    const struct entry *entry = object_find(registry, path);

    if (entry)
        return entry->migration;
    error_set(error, VF_ERROR_NO_SUCH_MIGRATION, "There is no migration %s (any more). ListMigrations tells.",
              path + strlen(BROKER_PATH));
    return NULL;
}

struct migration *subject_find_running(const struct registry *registry, sd_bus_message *m,
                                       sd_bus_error *error)
{
    struct migration *migration = subject_find(registry, m, error);
    const struct identity *identity = migration ? migration_identity(migration) : NULL;

    if (!identity || identity->state != STATE_FINISHED)
        return migration;
    error_set(error, VF_ERROR_NO_SUCH_MIGRATION, "Migration %s of VM '%s' is finished.", identity->id_text,
              identity->vm);
    return NULL;
}

static int read_existing(sd_bus_message *m, const struct registry *registry, struct subject *ret,
                         sd_bus_error *error)
{
    const struct migration *migration = subject_find(registry, m, error);
    const struct identity *identity;

    if (!migration)
        return -ENOENT;
    identity = migration_identity(migration);
    snprintf(ret->vm, sizeof(ret->vm), "%s", identity->vm);
    snprintf(ret->peer, sizeof(ret->peer), "%s", migration_status(migration)->peer);
    snprintf(ret->id_text, sizeof(ret->id_text), "%s", identity->id_text);
    ret->role = identity->role;
    ret->owner = identity->uid;
    ret->started = identity->started;
    ret->supplies = identity->role == ROLE_OUTGOING && migration_options(migration)->n_endpoints > 0 &&
                    sd_bus_message_is_method_call(m, NULL, "AddPeerConnection");
    return 0;
}

static bool is_existing(enum action action)
{
    return action == ACTION_MANAGE || action == ACTION_REPORT;
}

/* ---- Both ---- */

int subject_read(sd_bus_message *m, enum action action, const struct registry *registry,
                 const struct config *config, struct subject *ret, sd_bus_error *error)
{
    int r;

    *ret = (struct subject){.action = action};
    if (action == ACTION_READ || action == ACTION_RELOAD)
        return 0;
    r = is_existing(action) ? read_existing(m, registry, ret, error) : read_new(m, config, ret, error);
    return r < 0 ? r : sd_bus_message_rewind(m, true);
}

int subject_check(const struct subject *subject, sd_bus_message *m, const struct registry *registry,
                  sd_bus_error *error)
{
    const struct migration *migration;
    const struct identity *identity;

    if (!is_existing(subject->action))
        return 0;
    migration = subject_find(registry, m, error);
    if (!migration)
        return -ENOENT;
    identity = migration_identity(migration);
    if (identity->uid != subject->owner || identity->started != subject->started)
        return error_set(error, VF_ERROR_NO_SUCH_MIGRATION,
                         "Migration %s is another one than that which the call was for.", identity->id_text);
    return 0;
}

void subject_describe(const struct subject *subject, char ret[static SUBJECT_TEXT_MAX])
{
    if (subject->supplies)
        snprintf(
            ret, SUBJECT_TEXT_MAX,
            "bring a connection to migration %s of VM '%s', which belongs to uid %u and was permitted for "
            "its endpoints",
            subject->id_text, subject->vm, subject->owner);
    else if (is_existing(subject->action))
        snprintf(ret, SUBJECT_TEXT_MAX, "%s migration %s of VM '%s', which belongs to uid %u",
                 subject->action == ACTION_REPORT ? "report on" : "manage", subject->id_text, subject->vm,
                 subject->owner);
    else if (subject->action == ACTION_RELOAD)
        snprintf(ret, SUBJECT_TEXT_MAX, "have the configuration read again");
    else
        snprintf(ret, SUBJECT_TEXT_MAX, "make an %s migration of %sVM '%s' here", role_text(subject->role),
                 subject->libvirt ? "libvirt's " : "", subject->vm);
}
