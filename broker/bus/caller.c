/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/bus/caller.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/log.h"
#include "broker/manager.h"
#include "common/cleanup.h"

/* Calls that wait for polkit, which may be for minutes: of one user, and all of them. */
#define ASKED_PER_USER 16
#define ASKED_MAX      64

struct call {
    TAILQ_ENTRY(call) entry;
    struct manager *manager;
    sd_bus_message *m;
    sd_bus_slot *slot; /* of the question that it waits for */
    call_t run;
    bool asked; /* polkit: authorization is filled */
    struct authorization authorization;
};

static void call_free(struct call *call)
{
    TAILQ_REMOVE(&call->manager->calls, call, entry);
    call->manager->n_calls--;
    call->manager->n_asked -= call->asked;
    sd_bus_slot_unref(call->slot);
    sd_bus_message_unref(call->m);
    free(call);
}

static void log_denied(const struct call *call, const char *why)
{
    char uid[16];
    const struct log_about about = {
        .message_id = LOG_DENIED, .uid = uid, .method = sd_bus_message_get_member(call->m)};

    snprintf(uid, sizeof(uid), "%u", call->authorization.uid);
    log_about(LOG_NOTICE, &about, "Denied: %s", why);
}

/* The end of a call: what it came to is replied, unless that has been done. */
static void call_end(struct call *call, int r, sd_bus_error *error)
{
    if (sd_bus_error_has_name(error, SD_BUS_ERROR_ACCESS_DENIED) && log_sample(&call->manager->n_denied))
        log_denied(call, error->message);
    if (sd_bus_error_is_set(error))
        sd_bus_reply_method_error(call->m, error);
    else if (r < 0)
        sd_bus_reply_method_errno(call->m, r, NULL);
    call_free(call);
}

static int too_many(uint32_t n, const char *whose, sd_bus_error *error)
{
    return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                     "%" PRIu32
                     " calls of %s are waiting already, which is the limit (MaxCallsPerUser=; for polkit "
                     "%d at most). Wait for their answers.",
                     n, whose, ASKED_PER_USER);
}

static int on_answer(sd_bus_message *reply, void *userdata, sd_bus_error *unused)
{
    struct call *call = userdata;
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    int r = authorize_answer(&call->authorization, reply, &error);

    (void)unused;
    if (sd_bus_message_is_method_error(reply, NULL))
        authorize_cancel(call->manager, &call->authorization); /* it was too slow, and may be asking still */
    if (r >= 0)
        r = authorize_again(call->manager, call->m, &call->authorization, &error);
    if (r >= 0)
        r = call->run(call->manager, call->m, call->authorization.uid, &error);
    call_end(call, r, &error);
    return 0;
}

/* What one user has asked for already is bounded before polkit has work with it. */
static int ask(struct call *call, uid_t uid, sd_bus_error *error)
{
    struct manager *manager = call->manager;
    uint32_t max = manager->config->max_calls_per_user, of_user = 0;
    struct call *other;
    char whose[32];

    TAILQ_FOREACH(other, &manager->calls, entry)
    of_user += other->asked && other->authorization.uid == uid;
    if (of_user >= (max < ASKED_PER_USER ? max : ASKED_PER_USER)) {
        snprintf(whose, sizeof(whose), "uid %u", uid);
        return too_many(of_user, whose, error);
    }
    if (manager->n_asked >= ASKED_MAX)
        return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                         "%" PRIu32 " calls wait for polkit already, which is the limit. Try again.",
                         manager->n_asked);
    call->asked = true;
    manager->n_asked++;
    call->slot = sd_bus_slot_unref(call->slot);
    return authorize_ask(manager, &call->authorization, sd_bus_message_get_sender(call->m), on_answer, call,
                         &call->slot);
}

static int on_uid(sd_bus_message *reply, void *userdata, sd_bus_error *unused)
{
    struct call *call = userdata;
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    struct authorization *authorization = &call->authorization;
    enum action action = authorization->action;
    uint32_t uid;
    int r;

    (void)unused;
    /* An error means that the caller has gone: nobody is there to be answered, and nothing is done for him.
     */
    if (sd_bus_message_is_method_error(reply, NULL) || sd_bus_message_read(reply, "u", &uid) < 0) {
        call_free(call);
        return 0;
    }
    r = authorize_decide(call->manager, call->m, action, uid, authorization, &error);
    if (r == 0) {
        r = ask(call, uid, &error);
        if (r >= 0)
            return 0;
    } else if (r > 0) {
        r = call->run(call->manager, call->m, uid, &error);
    }
    call_end(call, r, &error);
    return 0;
}

int caller_resolve(struct manager *manager, sd_bus_message *m, enum action action, call_t run,
                   sd_bus_error *error)
{
    const struct config *config = manager->config;
    struct call *call;
    uint32_t of_sender = 0;
    int r;

    TAILQ_FOREACH(call, &manager->calls, entry)
    of_sender += strcmp(sd_bus_message_get_sender(call->m), sd_bus_message_get_sender(m)) == 0;
    if (of_sender >= config->max_calls_per_user)
        return too_many(of_sender, "this connection", error);
    /* Those that wait for polkit have limits of their own: none of root's is refused for them. */
    if (manager->n_calls - manager->n_asked >= config->max_calls)
        return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                         "%" PRIu32 " calls are waiting already, which is the limit (MaxCalls=). Try again.",
                         manager->n_calls - manager->n_asked);
    call = calloc(1, sizeof(*call));
    if (!call)
        return -ENOMEM;
    call->manager = manager;
    call->m = sd_bus_message_ref(m);
    call->run = run;
    call->authorization.action = action;
    TAILQ_INSERT_TAIL(&manager->calls, call, entry);
    manager->n_calls++;
    r = sd_bus_call_method_async(manager->bus, &call->slot, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                 "org.freedesktop.DBus", "GetConnectionUnixUser", on_uid, call, "s",
                                 sd_bus_message_get_sender(m));
    if (r < 0) {
        call_free(call);
        return r;
    }
    return 1;
}

void caller_gone(struct manager *manager, const char *name)
{
    struct call *call, *next;

    for (call = TAILQ_FIRST(&manager->calls); call; call = next) {
        next = TAILQ_NEXT(call, entry);
        if (strcmp(sd_bus_message_get_sender(call->m), name) != 0)
            continue;
        authorize_cancel(manager, &call->authorization);
        call_free(call);
    }
}

void caller_drop_all(struct manager *manager)
{
    while (!TAILQ_EMPTY(&manager->calls))
        call_free(TAILQ_FIRST(&manager->calls));
}
