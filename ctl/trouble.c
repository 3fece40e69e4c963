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

int trouble_set(struct trouble *trouble, int status, const char *format, ...)
{
    _cleanup_free_ char *text = NULL;
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
    trouble->text = malloc(strlen(text) + 1);
    if (trouble->text)
        message_text_set(trouble->text, strlen(text) + 1, text);
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

int trouble_set_bus(struct trouble *trouble, const sd_bus_error *error, const char *doing)
{
    const char *text = error->message ? error->message : error->name ? error->name : "no reason was given";

    if (is(error, SD_BUS_ERROR_SERVICE_UNKNOWN) || is(error, SD_BUS_ERROR_NAME_HAS_NO_OWNER))
        return trouble_set(trouble, STATUS_FAILED,
                           "%s: vmferryd is not on this bus (%s). Start it (systemctl start vmferryd), or "
                           "name another bus with --user, --address= or --host=.",
                           doing, text);
    if (is(error, SD_BUS_ERROR_ACCESS_DENIED) || is(error, SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED))
        return trouble_set(trouble, STATUS_DENIED, "%s: %s%s", doing, text,
                           strstr(text, "root") ? "" : " Run it as root, or as the user who owns it.");
    if (is(error, SD_BUS_ERROR_NO_REPLY) || is(error, SD_BUS_ERROR_TIMEOUT))
        return trouble_set(trouble, STATUS_TIMED_OUT, "%s: the broker did not answer (%s).", doing, text);
    if (is(error, SD_BUS_ERROR_UNKNOWN_OBJECT))
        return trouble_set(trouble, STATUS_FAILED,
                           "%s: it is gone; finished migrations are kept for 10 minutes. "
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
