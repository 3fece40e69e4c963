/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/bus/authorize.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "broker/bus/options.h"
#include "broker/migration/migration.h"
#include "broker/sockets/deputy.h"
#include "common/cleanup.h"

/* µs until polkit must have answered: without and with somebody who has to type his password first. */
enum { ANSWER_TIMEOUT = 10000000, INTERACTIVE_TIMEOUT = 120000000 };

#define POLKIT_NAME      "org.freedesktop.PolicyKit1"
#define POLKIT_PATH      "/org/freedesktop/PolicyKit1/Authority"
#define POLKIT_INTERFACE "org.freedesktop.PolicyKit1.Authority"

static const char *const action_ids[] = {
    [ACTION_PREPARE] = "org.vmferry.Broker1.prepare-incoming",
    [ACTION_START] = "org.vmferry.Broker1.start-outgoing",
    [ACTION_MANAGE] = "org.vmferry.Broker1.manage",
};

enum { WANTED_MAX = VM_MAX + 128 };

/* What the caller wants, as it goes on after "uid 1000 may not". */
static void describe(const struct authorization *authorization, char ret[static WANTED_MAX])
{
    if (authorization->action == ACTION_MANAGE)
        snprintf(ret, WANTED_MAX, "manage migration %s of VM '%s', which belongs to uid %u",
                 authorization->id_text, authorization->vm, authorization->owner);
    else
        snprintf(ret, WANTED_MAX, "make an %s migration of VM '%s' here", authorization->role,
                 authorization->vm);
}

/* ---- What a call is about ---- */

/* The endpoints that StartOutgoing would dial: those of its option, or of its ticket. */
static int read_peer(sd_bus_message *m, const char *text, struct authorization *ret)
{
    struct ticket ticket;
    const char *endpoint = NULL;
    int r = options_peek_endpoint(m, &endpoint);
    size_t n = 0;

    if (r < 0)
        return r;
    if (endpoint) {
        snprintf(ret->peer, sizeof(ret->peer), "%s", endpoint);
        return 0;
    }
    if (ticket_decode(text, &ticket) != TICKET_OK)
        return 0; /* nothing will come of it */
    for (uint32_t i = 0; i < ticket.n_endpoints; i++)
        n += (size_t)snprintf(ret->peer + n, sizeof(ret->peer) - n, "%s%s", n > 0 ? " " : "",
                              ticket.endpoints[i]);
    ticket_clear(&ticket);
    return 0;
}

static int read_new(sd_bus_message *m, struct authorization *ret, sd_bus_error *error)
{
    const char *vm, *ticket;
    int r = manager_read_call(m, ret->action == ACTION_PREPARE ? ROLE_INCOMING : ROLE_OUTGOING, &vm, &ticket,
                              error);

    if (r < 0)
        return r;
    snprintf(ret->vm, sizeof(ret->vm), "%s", vm);
    ret->role = ret->action == ACTION_PREPARE ? "incoming" : "outgoing";
    return ret->action == ACTION_PREPARE ? 0 : read_peer(m, ticket, ret);
}

static int read_existing(struct manager *manager, sd_bus_message *m, struct authorization *ret,
                         sd_bus_error *error)
{
    struct migration *migration = migration_find_for(manager, m, error);

    if (!migration)
        return -ENOENT;
    snprintf(ret->vm, sizeof(ret->vm), "%s", migration->vm);
    snprintf(ret->peer, sizeof(ret->peer), "%s", migration->peer);
    snprintf(ret->id_text, sizeof(ret->id_text), "%s", migration->id_text);
    ret->role = migration_role_text(migration);
    ret->owner = migration->uid;
    ret->started = migration->started;
    return 0;
}

int authorize_decide(struct manager *manager, sd_bus_message *m, enum action action, uid_t uid,
                     struct authorization *ret, sd_bus_error *error)
{
    char wanted[WANTED_MAX];
    int r;

    *ret = (struct authorization){.action = action, .uid = uid};
    r = action == ACTION_MANAGE ? read_existing(manager, m, ret, error) : read_new(m, ret, error);
    if (r >= 0)
        r = sd_bus_message_rewind(m, true);
    if (r < 0)
        return r;
    if (!deputy_is_restricted(uid) || (action == ACTION_MANAGE && ret->owner == uid))
        return 1;
    if (manager->config->bus == BUS_SYSTEM) {
        ret->interactive = sd_bus_message_get_allow_interactive_authorization(m) > 0;
        return 0;
    }
    describe(ret, wanted);
    return sd_bus_error_setf(error, SD_BUS_ERROR_ACCESS_DENIED,
                             "uid %u may not %s; only root and uid %u may, whose broker this is.", uid,
                             wanted, geteuid());
}

/* ---- polkit ---- */

/* https://www.freedesktop.org/software/polkit/docs/latest/eggdbus-interface-org.freedesktop.PolicyKit1.Authority.html
 */
static int append_question(sd_bus_message *m, const struct authorization *authorization, const char *sender)
{
    int r = sd_bus_message_append(m, "(sa{sv})s", "system-bus-name", 1, "name", "s", sender,
                                  action_ids[authorization->action]);

    if (r >= 0)
        r = sd_bus_message_append(m, "a{ss}", 3, "vm", authorization->vm, "peer", authorization->peer, "role",
                                  authorization->role);
    return r < 0 ? r
                 : sd_bus_message_append(m, "us", (uint32_t)authorization->interactive,
                                         authorization->cancellation);
}

int authorize_ask(struct manager *manager, struct authorization *authorization, const char *sender,
                  sd_bus_message_handler_t handler, void *userdata, sd_bus_slot **ret)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
    int r;

    /* Only a question that somebody sees needs to be taken back. */
    if (authorization->interactive)
        snprintf(authorization->cancellation, sizeof(authorization->cancellation), "%" PRIu64,
                 ++manager->n_questions);
    r = sd_bus_message_new_method_call(manager->bus, &m, POLKIT_NAME, POLKIT_PATH, POLKIT_INTERFACE,
                                       "CheckAuthorization");
    if (r >= 0)
        r = append_question(m, authorization, sender);
    if (r < 0)
        return r;
    return sd_bus_call_async(manager->bus, ret, m, handler, userdata,
                             authorization->interactive ? INTERACTIVE_TIMEOUT : ANSWER_TIMEOUT);
}

/* Why polkit said nothing. */
static int no_answer(const struct authorization *authorization, const sd_bus_error *why, const char *wanted,
                     sd_bus_error *error)
{
    static const char *const absent[] = {SD_BUS_ERROR_SERVICE_UNKNOWN, SD_BUS_ERROR_NAME_HAS_NO_OWNER,
                                         "org.freedesktop.DBus.Error.Spawn.ServiceNotFound",
                                         "org.freedesktop.systemd1.NoSuchUnit"};

    for (size_t i = 0; i < sizeof(absent) / sizeof(absent[0]); i++)
        if (sd_bus_error_has_name(why, absent[i]))
            return error_denied(
                error,
                "uid %u may not %s: there is no polkit on this host that could permit it (%s). Install "
                "polkitd, or call as root.",
                authorization->uid, wanted, action_ids[authorization->action]);
    if (sd_bus_error_has_name(why, SD_BUS_ERROR_NO_REPLY) || sd_bus_error_has_name(why, SD_BUS_ERROR_TIMEOUT))
        return error_denied(
            error, "uid %u may not %s: polkit did not answer (%s). Call again, or look at polkit's log.",
            authorization->uid, wanted, why->message);
    return error_denied(error,
                        "uid %u may not %s: polkit cannot say whether %s is permitted: %s. Is vmferry's "
                        "polkit policy installed?",
                        authorization->uid, wanted, action_ids[authorization->action],
                        why->message ? why->message : why->name);
}

int authorize_answer(const struct authorization *authorization, sd_bus_message *reply, sd_bus_error *error)
{
    const char *id = action_ids[authorization->action];
    char wanted[WANTED_MAX];
    int yes = 0, challenge = 0;

    describe(authorization, wanted);
    if (sd_bus_message_is_method_error(reply, NULL))
        return no_answer(authorization, sd_bus_message_get_error(reply), wanted, error);
    if (sd_bus_message_enter_container(reply, 'r', "bba{ss}") < 0 ||
        sd_bus_message_read(reply, "bb", &yes, &challenge) < 0)
        return error_denied(error, "uid %u may not %s: polkit's answer makes no sense.", authorization->uid,
                            wanted);
    if (yes)
        return 0;
    if (!challenge)
        return error_denied(
            error,
            "uid %u may not %s: polkit says no (%s). Have it permitted by a rule of polkit, or call "
            "as root.",
            authorization->uid, wanted, id);
    return error_named(
        error, SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED,
        authorization->interactive
            ? "uid %u must authenticate to %s (%s), but has no agent of polkit for that. Start "
              "pkttyagent, or have it permitted by a rule of polkit."
            : "uid %u must authenticate to %s (%s). Call again with interactive authorization "
              "allowed.",
        authorization->uid, wanted, id);
}

void authorize_cancel(struct manager *manager, const struct authorization *authorization)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;

    if (authorization->cancellation[0] == '\0')
        return;
    if (sd_bus_message_new_method_call(manager->bus, &m, POLKIT_NAME, POLKIT_PATH, POLKIT_INTERFACE,
                                       "CancelCheckAuthorization") < 0 ||
        sd_bus_message_append(m, "s", authorization->cancellation) < 0 ||
        sd_bus_message_set_expect_reply(m, false) < 0)
        return;
    sd_bus_send(manager->bus, m, NULL);
}

int authorize_again(struct manager *manager, sd_bus_message *m, const struct authorization *authorization,
                    sd_bus_error *error)
{
    struct migration *migration;

    if (authorization->action != ACTION_MANAGE)
        return 0;
    migration = migration_find_for(manager, m, error);
    if (!migration)
        return -ENOENT;
    if (migration->uid != authorization->owner || migration->started != authorization->started)
        return error_set(error, VF_ERROR_NO_SUCH_MIGRATION,
                         "Migration %s is another one than that which the call was for.", migration->id_text);
    return 0;
}
