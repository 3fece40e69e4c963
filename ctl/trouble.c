/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/trouble.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"
#include "common/error.h"
#include "common/message.h"

/* The broker speaks to programs of its members and options; people type ours. */
static char *in_our_words(const char *text)
{
    static const struct {
        const char *theirs, *ours;
    } words[] = {
        {"Call PrepareIncoming for a new one, with a larger 'expire-usec' if need be.",
         "Run 'vmferryctl receive' again, with a longer --expire= if need be."},
        {"Call PrepareIncoming there for a ticket.", "Run 'vmferryctl receive' there for a ticket."},
        {"Call PrepareIncoming for a new one.", "Run 'vmferryctl receive' for a new one."},
        {"Use the ticket that the peer's PrepareIncoming gave, unchanged.",
         "Use the ticket that 'vmferryctl receive' printed there, unchanged."},
        {"Pass exactly the text that PrepareIncoming gave,",
         "Give exactly what 'vmferryctl receive' printed,"},
        {"by AddPeerConnection in time (expire-usec)", "in time (--expire=)"},
        {" Call again with interactive authorization allowed.", ""},
        {"Give one in 'endpoints'.", "Give one with --endpoint=."},
        {"Too many open files.",
         "Too many open files: raise the limit of vmferryd (LimitNOFILE= of its unit)."},
    };
    char *all = strdup(text);

    for (size_t i = 0; all && i < sizeof(words) / sizeof(words[0]); i++) {
        const char *at = strstr(all, words[i].theirs);
        char *next = NULL;

        if (!at)
            continue;
        if (asprintf(&next, "%.*s%s%s", (int)(at - all), all, words[i].ours, at + strlen(words[i].theirs)) <
            0)
            next = NULL;
        free(all);
        all = next;
    }
    return all;
}

int trouble_set(struct trouble *trouble, int status, const char *format, ...)
{
    _cleanup_free_ char *text = NULL, *ours = NULL;
    va_list args;
    int r;

    if (!trouble || trouble->status != 0)
        return -1;
    trouble->status = status;
    va_start(args, format);
    r = vasprintf(&text, format, args);
    va_end(args);
    if (r < 0) {
        text = NULL;
        return -1;
    }
    ours = in_our_words(text);
    trouble->text = ours ? malloc(strlen(ours) + 1) : NULL;
    if (trouble->text)
        message_text_set(trouble->text, strlen(ours) + 1, ours);
    return -1;
}

int trouble_no_memory(struct trouble *trouble)
{
    return trouble_set(trouble, STATUS_FAILED, "There is no memory left.");
}

static bool is(const sd_bus_error *error, const char *name)
{
    return sd_bus_error_has_name(error, name);
}

/* text: of the broker, or of the bus. Domains of libvirt have an action of their own. */
static const char *remedy_of_denied(const char *text)
{
    if (strstr(text, "vmferry there"))
        return "";
    if (strstr(text, "org.vmferry.Broker1.libvirt"))
        return " Run it as root, or let an administrator add you to the groups libvirt and vmferry at that "
               "host (adduser USER libvirt; adduser USER vmferry).";
    return " Run it as root, as the user who owns it, or let an administrator add you to the group vmferry "
           "at "
           "that host (adduser USER vmferry).";
}

int trouble_set_bus(struct trouble *trouble, const sd_bus_error *error, const char *doing)
{
    const char *text = error->message ? error->message : error->name ? error->name : "no reason was given";

    if (is(error, SD_BUS_ERROR_SERVICE_UNKNOWN) || is(error, SD_BUS_ERROR_NAME_HAS_NO_OWNER))
        return trouble_set(trouble, STATUS_FAILED,
                           "%s: vmferryd is not on this bus (%s). Start it (systemctl start vmferryd), or "
                           "name another bus with --user, --address= or --host=.",
                           doing, text);
    if (is(error, SD_BUS_ERROR_ACCESS_DENIED) || is(error, SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED))
        return trouble_set(trouble, STATUS_DENIED, "%s: %s%s", doing, text, remedy_of_denied(text));
    if (is(error, SD_BUS_ERROR_NO_REPLY) || is(error, SD_BUS_ERROR_TIMEOUT))
        return trouble_set(trouble, STATUS_TIMED_OUT, "%s: the broker did not answer (%s).", doing, text);
    if (is(error, SD_BUS_ERROR_UNKNOWN_OBJECT))
        return trouble_set(trouble, STATUS_FAILED,
                           "%s: " TROUBLE_GONE
                           "; finished migrations are kept for 10 minutes. "
                           "'vmferryctl list' shows those that are there.",
                           doing);
    return trouble_set(trouble, trouble_status_of("failed", error->name), "%s: %s", doing, text);
}

int trouble_status_of(const char *result, const char *error_name)
{
    const char *name = error_name && strncmp(error_name, ERROR_PREFIX, strlen(ERROR_PREFIX)) == 0
                           ? error_name + strlen(ERROR_PREFIX)
                           : "";

    if (strcmp(result, "done") == 0)
        return STATUS_DONE;
    if (strcmp(result, "cancelled") == 0 || strcmp(name, "Cancelled") == 0)
        return STATUS_CANCELLED;
    if (strcmp(result, "timed-out") == 0 || strcmp(name, "TimedOut") == 0)
        return STATUS_TIMED_OUT;
    return STATUS_FAILED;
}

void trouble_clear(struct trouble *trouble)
{
    free(trouble->text);
    *trouble = (struct trouble){0};
}
