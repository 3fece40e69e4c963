/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/bus/authorize.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "broker/errors.h"
#include "broker/sockets/deputy.h"
#include "common/cleanup.h"

/* µs until polkit must have answered: without and with a user who has to type a password first. */
enum { ANSWER_TIMEOUT = 10000000, INTERACTIVE_TIMEOUT = 120000000 };

#define POLKIT_NAME      "org.freedesktop.PolicyKit1"
#define POLKIT_PATH      "/org/freedesktop/PolicyKit1/Authority"
#define POLKIT_INTERFACE "org.freedesktop.PolicyKit1.Authority"

static const char *const action_ids[] = {
    [ACTION_PREPARE] = "org.vmferry.Broker1.prepare-incoming",
    [ACTION_START] = "org.vmferry.Broker1.start-outgoing",
    [ACTION_LIBVIRT] = "org.vmferry.Broker1.libvirt",
    [ACTION_MANAGE] = "org.vmferry.Broker1.manage",
};

int authorize_decide(const struct polkit *polkit, const struct subject *subject, uid_t uid, bool may_ask_user,
                     struct authorization *ret, sd_bus_error *error)
{
    const bool reports = subject->action == ACTION_REPORT,
               owns = (reports || subject->action == ACTION_MANAGE) && subject->owner == uid;
    char wanted[SUBJECT_TEXT_MAX];

    *ret = (struct authorization){.subject = *subject, .uid = uid, .supplies = owns && subject->supplies};
    if (!deputy_is_restricted(uid) || subject->action == ACTION_READ || (owns && !subject->supplies))
        return 1;
    subject_describe(subject, wanted);
    if (reports)
        return error_denied(error, "uid %u may not %s; only that user and root may.", uid, wanted);
    if (subject->action == ACTION_RELOAD)
        return error_denied(error, "uid %u may not %s; only root may, and the user as whom the broker runs.",
                            uid, wanted);
    if (polkit->there && subject->unclear)
        return error_set(
            error, VF_ERROR_INVALID_TICKET,
            "uid %u names what is no endpoint, or has a blank in it, so that polkit cannot be asked "
            "about it: '%s'.",
            uid, subject->peer);
    if (polkit->there) {
        ret->interactive = may_ask_user;
        return 0;
    }
    return sd_bus_error_setf(error, SD_BUS_ERROR_ACCESS_DENIED,
                             "uid %u may not %s; only root and uid %u may, whose broker this is.", uid,
                             wanted, geteuid());
}

/* ---- polkit ---- */

/* https://www.freedesktop.org/software/polkit/docs/latest/eggdbus-interface-org.freedesktop.PolicyKit1.Authority.html
 */
static const char *action_of(const struct authorization *authorization)
{
    return action_ids[authorization->subject.libvirt ? ACTION_LIBVIRT
                      : authorization->supplies      ? ACTION_START
                                                     : authorization->subject.action];
}

static int append_question(sd_bus_message *m, const struct authorization *authorization, const char *sender)
{
    int r = sd_bus_message_append(m, "(sa{sv})s", "system-bus-name", 1, "name", "s", sender,
                                  action_of(authorization));
    const struct subject *subject = &authorization->subject;

    if (r >= 0)
        r = sd_bus_message_append(m, "a{ss}", 3, "vm", subject->vm, "peer",
                                  authorization->supplies ? "supplied" : subject->peer, "role",
                                  role_text(subject->role));
    return r < 0 ? r
                 : sd_bus_message_append(m, "us", (uint32_t)authorization->interactive,
                                         authorization->cancellation);
}

int authorize_ask(struct polkit *polkit, struct authorization *authorization, const char *sender,
                  sd_bus_message_handler_t handler, void *userdata, sd_bus_slot **ret)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
    int r;

    /* Only a question that a user sees needs to be taken back. */
    if (authorization->interactive)
        snprintf(authorization->cancellation, sizeof(authorization->cancellation), "%" PRIu64,
                 ++polkit->n_questions);
    r = sd_bus_message_new_method_call(polkit->bus, &m, POLKIT_NAME, POLKIT_PATH, POLKIT_INTERFACE,
                                       "CheckAuthorization");
    if (r >= 0)
        r = append_question(m, authorization, sender);
    if (r < 0)
        return r;
    return sd_bus_call_async(polkit->bus, ret, m, handler, userdata,
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
                authorization->uid, wanted, action_of(authorization));
    if (sd_bus_error_has_name(why, SD_BUS_ERROR_NO_REPLY) || sd_bus_error_has_name(why, SD_BUS_ERROR_TIMEOUT))
        return error_denied(
            error, "uid %u may not %s: polkit did not answer (%s). Call again, or look at polkit's log.",
            authorization->uid, wanted, why->message);
    return error_denied(error,
                        "uid %u may not %s: polkit cannot say whether %s is permitted: %s. Is vmferry's "
                        "polkit policy installed?",
                        authorization->uid, wanted, action_of(authorization),
                        why->message ? why->message : why->name);
}

int authorize_answer(const struct authorization *authorization, sd_bus_message *reply, sd_bus_error *error)
{
    const char *id = action_of(authorization);
    char wanted[SUBJECT_TEXT_MAX];
    int yes = 0, challenge = 0;

    subject_describe(&authorization->subject, wanted);
    if (sd_bus_message_is_method_error(reply, NULL))
        return no_answer(authorization, sd_bus_message_get_error(reply), wanted, error);
    if (sd_bus_message_enter_container(reply, 'r', "bba{ss}") < 0 ||
        sd_bus_message_read(reply, "bb", &yes, &challenge) < 0)
        return error_denied(error, "uid %u may not %s: polkit's answer makes no sense.", authorization->uid,
                            wanted);
    /* Anything but a clear yes denies: an error, no answer, and a challenge that no agent has met. */
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

void authorize_cancel(struct polkit *polkit, const struct authorization *authorization)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;

    if (authorization->cancellation[0] == '\0')
        return;
    if (sd_bus_message_new_method_call(polkit->bus, &m, POLKIT_NAME, POLKIT_PATH, POLKIT_INTERFACE,
                                       "CancelCheckAuthorization") < 0 ||
        sd_bus_message_append(m, "s", authorization->cancellation) < 0 ||
        sd_bus_message_set_expect_reply(m, false) < 0)
        return;
    sd_bus_send(polkit->bus, m, NULL);
}
