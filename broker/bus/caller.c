/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/bus/caller.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "broker/errors.h"
#include "broker/log.h"
#include "broker/release.h"
#include "common/cleanup.h"

/* Calls that wait for polkit, which may be for minutes: of one user, and all of them. */
#define ASKED_PER_USER 16
#define ASKED_MAX      64

enum call_stage {
    CALL_KNOWS_NOTHING, /* the bus is asked for the caller's uid */
    CALL_ASKS_POLKIT,   /* its authorization is filled */
};

struct call {
    TAILQ_ENTRY(call) next;
    struct calls *all;
    sd_bus_message *m;
    sd_bus_slot *slot; /* of the question that it waits for */
    call_t run;
    enum action action;
    enum call_stage stage;
    struct authorization authorization;
};

void calls_init(struct calls *calls, sd_bus *bus, const struct config *config,
                const struct registry *registry, struct bus *userdata)
{
    *calls = (struct calls){.config = config,
                            .registry = registry,
                            .userdata = userdata,
                            .polkit = {.bus = bus, .there = config->bus == BUS_SYSTEM}};
    TAILQ_INIT(&calls->waiting);
}

static void call_free(struct call *call)
{
    TAILQ_REMOVE(&call->all->waiting, call, next);
    call->all->n--;
    call->all->n_asked -= call->stage == CALL_ASKS_POLKIT;
    sd_bus_slot_unref(call->slot);
    sd_bus_message_unref(call->m);
    free(call);
}

static void log_denied(const struct call *call, const char *why)
{
    char uid[16], user[24];
    const struct log_about about = {
        .message_id = LOG_DENIED, .uid = uid, .method = sd_bus_message_get_member(call->m)};

    snprintf(uid, sizeof(uid), "%u", call->authorization.uid);
    snprintf(user, sizeof(user), "uid %s", uid);
    if (log_sample_of(&call->all->denied, user, "denied calls"))
        log_about(LOG_NOTICE, &about, "Denied: %s", why);
}

/* What has no error of its own: the call is not to be read, or the host refused the broker something. */
static void reply_errno(sd_bus_message *m, int r)
{
    if (r == -ENOMEM || r == -EINVAL || r == -EBADMSG || r == -ENXIO)
        sd_bus_reply_method_errno(m, r, NULL);
    else
        sd_bus_reply_method_errorf(m, SD_BUS_ERROR_FAILED,
                                   "The host refused vmferryd something that it needs: %s. Try again.",
                                   strerror(-r));
}

/* The end of a call: what it came to is replied, unless that has been done. */
static void call_end(struct call *call, int r, sd_bus_error *error)
{
    if (sd_bus_error_has_name(error, SD_BUS_ERROR_ACCESS_DENIED))
        log_denied(call, error->message);
    if (sd_bus_error_is_set(error))
        sd_bus_reply_method_error(call->m, error);
    else if (r < 0)
        reply_errno(call->m, r);
    call_free(call);
}

static int too_many(uint32_t n, const char *of, sd_bus_error *error)
{
    return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                     "%" PRIu32
                     " calls of %s are waiting already, which is the limit (MaxCallsPerUser=; for polkit "
                     "%d at most). Wait for their answers.",
                     n, of, ASKED_PER_USER);
}

static int on_answer(sd_bus_message *reply, void *userdata, sd_bus_error *unused)
{
    struct call *call = userdata;
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    int r = authorize_answer(&call->authorization, reply, &error);

    /* polkit may have taken minutes. A yes counts for the migration that it was asked for: subject_check()
     * looks whether another one has come to the same path meanwhile. */
    release_charge(call->authorization.uid);
    if (sd_bus_message_is_method_error(reply, NULL))
        authorize_cancel(&call->all->polkit,
                         &call->authorization); /* it was too slow, and may be asking still */
    if (r >= 0)
        r = subject_check(&call->authorization.subject, call->m, call->all->registry, &error);
    if (r >= 0)
        r = call->run(call->all->userdata, call->m, call->authorization.uid, &error);
    call_end(call, r, &error);
    return 0;
}

/* How much one user asks for is bounded before polkit has work with it. */
static int ask(struct call *call, uid_t uid, sd_bus_error *error)
{
    struct calls *all = call->all;
    uint32_t max = all->config->max_calls_per_user, of_user = 0;
    struct call *other;
    char user[32];

    TAILQ_FOREACH(other, &all->waiting, next)
    of_user += other->stage == CALL_ASKS_POLKIT && other->authorization.uid == uid;
    if (of_user >= (max < ASKED_PER_USER ? max : ASKED_PER_USER)) {
        snprintf(user, sizeof(user), "uid %u", uid);
        return too_many(of_user, user, error);
    }
    if (all->n_asked >= ASKED_MAX)
        return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                         "%" PRIu32 " calls wait for polkit already, which is the limit. Try again.",
                         all->n_asked);
    call->stage = CALL_ASKS_POLKIT;
    all->n_asked++;
    call->slot = sd_bus_slot_unref(call->slot);
    return authorize_ask(&all->polkit, &call->authorization, sd_bus_message_get_sender(call->m), on_answer,
                         call, &call->slot);
}

static int on_uid(sd_bus_message *reply, void *userdata, sd_bus_error *unused)
{
    struct call *call = userdata;
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    struct calls *all = call->all;
    struct subject subject;
    uint32_t uid;
    int r;

    /* The caller has left the bus: drop the call. */
    if (sd_bus_message_is_method_error(reply, NULL) || sd_bus_message_read(reply, "u", &uid) < 0) {
        call_free(call);
        return 0;
    }
    release_charge(uid);
    r = subject_read(call->m, call->action, all->registry, all->config, &subject, &error);
    if (r >= 0)
        r = authorize_decide(&all->polkit, &subject, uid,
                             sd_bus_message_get_allow_interactive_authorization(call->m) > 0,
                             &call->authorization, &error);
    if (r == 0) {
        r = ask(call, uid, &error);
        if (r >= 0)
            return 0;
    } else if (r > 0) {
        r = call->run(all->userdata, call->m, uid, &error);
    }
    call_end(call, r, &error);
    return 0;
}

/*
 * A copy of a call, to be held in its place: it has what is read and replied to, and nothing else that a
 * caller may have put into the header, which some buses pass on and which can be large.
 */
static int copy_call(sd_bus *bus, sd_bus_message *m, sd_bus_message **ret)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *copy = NULL;
    uint64_t cookie;
    int r = sd_bus_message_get_cookie(m, &cookie);

    if (r >= 0)
        r = sd_bus_message_new_method_call(bus, &copy, sd_bus_message_get_destination(m),
                                           sd_bus_message_get_path(m), sd_bus_message_get_interface(m),
                                           sd_bus_message_get_member(m));
    if (r >= 0)
        r = sd_bus_message_sensitive(copy); /* it may hold a ticket */
    if (r >= 0)
        r = sd_bus_message_set_sender(copy, sd_bus_message_get_sender(m));
    if (r >= 0)
        r = sd_bus_message_set_expect_reply(copy, sd_bus_message_get_expect_reply(m));
    if (r >= 0)
        r = sd_bus_message_set_allow_interactive_authorization(
            copy, sd_bus_message_get_allow_interactive_authorization(m));
    if (r >= 0)
        r = sd_bus_message_rewind(m, true);
    if (r >= 0)
        r = sd_bus_message_copy(copy, m, true);
    if (r >= 0)
        r = sd_bus_message_seal(copy, cookie, 0);
    if (r < 0)
        return r;
    *ret = copy;
    copy = NULL;
    return 0;
}

/* One with a descriptor is held as it is, for a copy would open that once more. Only root and the group may
 * send these. */
static int hold(sd_bus *bus, sd_bus_message *m, sd_bus_message **ret)
{
    const char *signature = sd_bus_message_get_signature(m, true);

    if (!signature || !strchr(signature, 'h'))
        return copy_call(bus, m, ret);
    *ret = sd_bus_message_ref(m);
    return 0;
}

int caller_resolve(struct calls *calls, sd_bus_message *m, enum action action, call_t run,
                   sd_bus_error *error)
{
    const struct config *config = calls->config;
    struct call *call;
    uint32_t of_sender = 0;
    int r;

    TAILQ_FOREACH(call, &calls->waiting, next)
    of_sender += strcmp(sd_bus_message_get_sender(call->m), sd_bus_message_get_sender(m)) == 0;
    if (of_sender >= config->max_calls_per_user)
        return too_many(of_sender, "this connection", error);
    /* Those that wait for polkit have limits of their own: none of root's is refused for them. */
    if (calls->n - calls->n_asked >= config->max_calls)
        return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                         "%" PRIu32 " calls are waiting already, which is the limit (MaxCalls=). Try again.",
                         calls->n - calls->n_asked);
    call = calloc(1, sizeof(*call));
    if (!call)
        return -ENOMEM;
    call->all = calls;
    r = hold(calls->polkit.bus, m, &call->m);
    if (r < 0) {
        free(call);
        return r;
    }
    call->run = run;
    call->action = action;
    TAILQ_INSERT_TAIL(&calls->waiting, call, next);
    calls->n++;
    r = sd_bus_call_method_async(calls->polkit.bus, &call->slot, "org.freedesktop.DBus",
                                 "/org/freedesktop/DBus", "org.freedesktop.DBus", "GetConnectionUnixUser",
                                 on_uid, call, "s", sd_bus_message_get_sender(m));
    if (r < 0) {
        call_free(call);
        return r;
    }
    return 1;
}

void caller_gone(struct calls *calls, const char *name)
{
    struct call *call, *next;

    for (call = TAILQ_FIRST(&calls->waiting); call; call = next) {
        next = TAILQ_NEXT(call, next);
        if (strcmp(sd_bus_message_get_sender(call->m), name) != 0)
            continue;
        release_charge(call->stage == CALL_ASKS_POLKIT ? call->authorization.uid : RELEASE_NOBODY);
        authorize_cancel(&calls->polkit, &call->authorization);
        call_free(call);
    }
}

void caller_drop_all(struct calls *calls)
{
    while (!TAILQ_EMPTY(&calls->waiting))
        call_free(TAILQ_FIRST(&calls->waiting));
}
