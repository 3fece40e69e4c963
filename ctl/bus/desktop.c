/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/bus/desktop.h"

#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

#define NOTIFICATIONS "org.freedesktop.Notifications"
#define PATIENCE      (5 * SECOND) /* a desktop that takes longer shows nothing */

int desktop_open(struct ctl *ctl, sd_bus **ret, struct trouble *trouble)
{
    int r = sd_bus_open_user(ret);

    if (r >= 0)
        r = sd_bus_set_exit_on_disconnect(*ret, true);
    if (r >= 0)
        r = sd_bus_attach_event(*ret, ctl->event, SD_EVENT_PRIORITY_NORMAL);
    return r < 0 ? trouble_set(trouble, STATUS_FAILED,
                               "Cannot connect to the session's bus: %s. Is this a session of yours, with "
                               "$XDG_RUNTIME_DIR set?",
                               strerror(-r))
                 : 0;
}

/* "&", "<" and ">" begin markup or end it. NULL where there is no memory. */
static char *escape(const char *text)
{
    char *escaped = malloc(strlen(text) * 5 + 1), *at = escaped;

    for (; escaped && *text; text++) {
        const char *as = *text == '&' ? "&amp;" : *text == '<' ? "&lt;" : *text == '>' ? "&gt;" : NULL;

        if (as)
            at = stpcpy(at, as);
        else
            *at++ = *text;
    }
    if (escaped)
        *at = '\0';
    return escaped;
}

void desktop_show(sd_bus *bus, const struct ctl *ctl, uint32_t *id, enum urgency urgency, const char *title,
                  const char *text)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
    _cleanup_(sd_bus_error_free) sd_bus_error error = SD_BUS_ERROR_NULL;
    _cleanup_free_ char *escaped = escape(text);
    int r = escaped ? sd_bus_message_new_method_call(bus, &m, NOTIFICATIONS, "/org/freedesktop/Notifications",
                                                     NOTIFICATIONS, "Notify")
                    : -ENOMEM;

    if (r >= 0) /* no actions; -1: the desktop knows for how long */
        r = sd_bus_message_append(m, "susssasa{sv}i", "vmferry", *id, "", title, escaped, 0, 1, "urgency",
                                  "y", (int)urgency, -1);
    if (r >= 0)
        r = sd_bus_call(bus, m, PATIENCE, &error, &reply);
    if (r >= 0)
        r = sd_bus_message_read(reply, "u", id);
    if (r < 0)
        ctl_say(ctl, "The desktop shows no notification (%s): %s. %s",
                error.message ? error.message : strerror(-r), title, text);
}
