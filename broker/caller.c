/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "caller.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "manager.h"

enum { CALLS_MAX = 1024, CALLS_PER_SENDER = 512 };

struct call {
    TAILQ_ENTRY(call) entry;
    struct manager *manager;
    sd_bus_message *m;
    sd_bus_slot *slot;
    call_t run;
};

static void call_free(struct call *call)
{
    TAILQ_REMOVE(&call->manager->calls, call, entry);
    call->manager->n_calls--;
    sd_bus_slot_unref(call->slot);
    sd_bus_message_unref(call->m);
    free(call);
}

static int on_uid(sd_bus_message *reply, void *userdata, sd_bus_error *unused)
{
    struct call *call = userdata;
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    uint32_t uid;
    int r;

    (void)unused;
    /* An error means that the caller has gone: nobody is there to be answered, and nothing is done for him.
     */
    if (!sd_bus_message_is_method_error(reply, NULL) && sd_bus_message_read(reply, "u", &uid) >= 0) {
        r = call->run(call->manager, call->m, uid, &error);
        if (sd_bus_error_is_set(&error))
            sd_bus_reply_method_error(call->m, &error);
        else if (r < 0)
            sd_bus_reply_method_errno(call->m, r, NULL);
    }
    call_free(call);
    return 0;
}

int caller_resolve(struct manager *manager, sd_bus_message *m, call_t run, sd_bus_error *error)
{
    struct call *call;
    unsigned of_sender = 0;
    int r;

    TAILQ_FOREACH(call, &manager->calls, entry)
    of_sender += strcmp(sd_bus_message_get_sender(call->m), sd_bus_message_get_sender(m)) == 0;
    if (of_sender >= CALLS_PER_SENDER)
        return error_set(error, VF_ERROR_LIMIT_EXCEEDED,
                         "%d of your calls are waiting already. Wait for their answers.", CALLS_PER_SENDER);
    if (manager->n_calls >= CALLS_MAX)
        return error_set(error, VF_ERROR_LIMIT_EXCEEDED, "%d calls are waiting already. Try again.",
                         CALLS_MAX);
    call = calloc(1, sizeof(*call));
    if (!call)
        return -ENOMEM;
    call->manager = manager;
    call->m = sd_bus_message_ref(m);
    call->run = run;
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

void caller_drop_all(struct manager *manager)
{
    while (!TAILQ_EMPTY(&manager->calls))
        call_free(TAILQ_FIRST(&manager->calls));
}
