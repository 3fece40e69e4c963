/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/verbs/check-install.h"

#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/cleanup.h"

/*
 * A call that starts a service by D-Bus waits 25 s for one that cannot start, and then names no reason. So
 * the start is watched where it happens: systemd has the states of the units and says them on the same bus.
 */

#define SYSTEMD        "org.freedesktop.systemd1"
#define SYSTEMD_UNITS  "/org/freedesktop/systemd1/unit"
#define BROKER_UNIT    "vmferryd.service"
#define HELPER_UNIT    "vmferry-helper.socket"
#define BROKER_USER    "vmferry"
#define LOOK_AGAIN     (SECOND / 20)
#define START_TIMEOUT  (30 * SECOND)
#define NAME_MAX_BYTES 64

/* The exit statuses of vmferryd that its unit does not start it again after, see there. */
enum { EXIT_USAGE = 2, EXIT_LIBRARY = 127, EXIT_EXEC = 203, EXIT_NO_USER = 217 };

/* A method of D-Bus' own or of systemd's with n texts; NULL where it fails. */
static sd_bus_message *ask(struct side *side, const char *to, const char *path, const char *member,
                           const char *const *texts, unsigned n)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
    const char *interface = strcmp(to, SYSTEMD) == 0 ? "org.freedesktop.DBus.Properties" : to;
    sd_bus_message *reply = NULL;
    int r = sd_bus_message_new_method_call(side->bus, &m, to, path, interface, member);

    for (unsigned i = 0; r >= 0 && i < n; i++)
        r = sd_bus_message_append(m, "s", texts[i]);
    if (r >= 0)
        side_send(side, m, 0, &reply, NULL, "");
    return reply;
}

static sd_bus_message *ask_bus(struct side *side, const char *member, const char *text)
{
    return ask(side, "org.freedesktop.DBus", "/org/freedesktop/DBus", member, &text, text ? 1 : 0);
}

static sd_bus_message *ask_unit(struct side *side, const char *unit, const char *interface, const char *name)
{
    _cleanup_free_ char *path = NULL;
    const char *const texts[] = {interface, name};

    return sd_bus_path_encode(SYSTEMD_UNITS, unit, &path) < 0 ? NULL
                                                              : ask(side, SYSTEMD, path, "Get", texts, 2);
}

/* A text property of a unit; "" where there is no systemd on this bus. */
static void unit_text(struct side *side, const char *unit, const char *interface, const char *name, char *ret,
                      size_t size)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = ask_unit(side, unit, interface, name);
    const char *text;

    if (!reply || sd_bus_message_read(reply, "v", "s", &text) < 0)
        text = "";
    snprintf(ret, size, "%s", text);
}

static int32_t exit_status(struct side *side)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply =
        ask_unit(side, BROKER_UNIT, SYSTEMD ".Service", "ExecMainStatus");
    int32_t status;

    return reply && sd_bus_message_read(reply, "v", "i", &status) >= 0 ? status : 0;
}

/* When its state changed last; 0 where that is not known. */
static uint64_t changed(struct side *side, const char *unit)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply =
        ask_unit(side, unit, SYSTEMD ".Unit", "StateChangeTimestampMonotonic");
    uint64_t when;

    return reply && sd_bus_message_read(reply, "v", "t", &when) >= 0 ? when : 0;
}

/* Whether it has failed, or waits after a failure for its next start, and had not at that time. */
static bool has_failed(struct side *side, const char *unit, uint64_t since)
{
    char active[NAME_MAX_BYTES], sub[NAME_MAX_BYTES];

    unit_text(side, unit, SYSTEMD ".Unit", "ActiveState", active, sizeof(active));
    unit_text(side, unit, SYSTEMD ".Unit", "SubState", sub, sizeof(sub));
    return (strcmp(active, "failed") == 0 || strcmp(sub, "auto-restart") == 0) &&
           changed(side, unit) != since;
}

/* ---- What is wrong ---- */

static void found(struct check *check, const char *remedy, const char *what, const struct side *side,
                  const char *text)
{
    check_found(check, VERDICT_FAIL, "install", remedy, "%s%s%s%s", what, side->where, text[0] ? ": " : ".",
                text);
}

/* The socket's user is looked up when it starts. Whether it is there can be seen on this host only. */
static void found_helper_socket(struct check *check, const struct side *side)
{
    static const char remedy[] =
        "Run as root there: systemd-sysusers && systemctl reload dbus && systemctl reset-failed 'vmferry*'";

    if (side->host)
        found(check, remedy, HELPER_UNIT " cannot start", side,
              "most often because there is no user '" BROKER_USER "'.");
    else if (!side->ctl->arguments.user && !getpwnam(BROKER_USER))
        found(check, remedy, "There is no user '" BROKER_USER "'", side, "");
    else
        found(check, "See: journalctl -u " HELPER_UNIT, HELPER_UNIT " cannot start", side, "");
}

static void found_broker(struct check *check, struct side *side)
{
    static const char again[] = "Install vmferry again there, for this distribution's version.";
    int32_t status = exit_status(side);
    char said[512];

    if (status == EXIT_NO_USER) {
        found(check, "Run as root there: systemd-sysusers && systemctl reload dbus",
              "There is no user '" BROKER_USER "'", side, "");
    } else if (status == EXIT_EXEC || status == EXIT_LIBRARY) {
        found(check, again,
              status == EXIT_EXEC ? "The program vmferryd cannot be run" : "vmferryd lacks a library", side,
              "");
    } else if (status == EXIT_USAGE) {
        found(check, "See: journalctl -u " BROKER_UNIT, "vmferryd's configuration or command line is wrong",
              side, "");
    } else {
        unit_text(side, BROKER_UNIT, SYSTEMD ".Service", "StatusText", said, sizeof(said));
        found(check,
              strstr(said, "reload dbus") ? "Run as root there: systemctl reload dbus"
                                          : "See: journalctl -u " BROKER_UNIT,
              "vmferryd cannot start", side, said);
    }
}

/* ---- Looking ---- */

static bool is_activatable(struct side *side)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = ask_bus(side, "ListActivatableNames", NULL);
    const char *name;

    if (!reply || sd_bus_message_enter_container(reply, 'a', "s") < 0)
        return false;
    while (sd_bus_message_read(reply, "s", &name) > 0)
        if (strcmp(name, BROKER_NAME) == 0)
            return true;
    return false;
}

static bool has_owner(struct side *side, const char *name)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *reply = ask_bus(side, "NameHasOwner", name);
    int there = 0;

    return reply && sd_bus_message_read(reply, "b", &there) >= 0 && there;
}

static bool is_running(struct side *side)
{
    return has_owner(side, BROKER_NAME);
}

/* Elsewhere whatever started the bus starts the broker, too. */
static bool has_systemd(struct side *side)
{
    return has_owner(side, SYSTEMD);
}

/* Whether the files are where systemd and D-Bus look, and have been read. */
static bool check_files(struct check *check, struct side *side)
{
    char load[NAME_MAX_BYTES];

    unit_text(side, BROKER_UNIT, SYSTEMD ".Unit", "LoadState", load, sizeof(load));
    if (strcmp(load, "loaded") != 0)
        found(check,
              strcmp(load, "masked") == 0
                  ? "Run as root there: systemctl unmask " BROKER_UNIT
                  : "Install vmferry there; if it is, run as root: systemctl daemon-reload",
              BROKER_UNIT " is not loaded", side, load);
    else if (!is_activatable(side))
        found(check, "Run as root there: systemctl reload dbus", "The bus has not read vmferry's files", side,
              "");
    else
        return true;
    return false;
}

/* As root at once, by systemd: D-Bus tries a start that failed again only when its 25 s are over. */
static void start_unit(struct side *side)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL;
    int r = sd_bus_message_new_method_call(side->bus, &m, SYSTEMD, "/org/freedesktop/systemd1",
                                           SYSTEMD ".Manager", "StartUnit");

    if (r >= 0)
        r = sd_bus_message_set_allow_interactive_authorization(m, false);
    if (r >= 0)
        r = sd_bus_message_append(m, "ss", BROKER_UNIT, "replace");
    if (r >= 0 && side_send(side, m, 0, NULL, NULL, "") >= 0)
        return;
    m = sd_bus_message_unref(m);
    r = sd_bus_message_new_method_call(side->bus, &m, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                       "org.freedesktop.DBus", "StartServiceByName");
    if (r >= 0)
        r = sd_bus_message_append(m, "su", BROKER_NAME, 0);
    if (r >= 0)
        sd_bus_send(side->bus, m, NULL);
}

/* Has the broker started, until it runs, or one of its units has failed. */
static bool check_start(struct check *check, struct side *side)
{
    uint64_t helper_since = changed(side, HELPER_UNIT), broker_since = changed(side, BROKER_UNIT);
    uint64_t end = ctl_now() + START_TIMEOUT;

    for (start_unit(side); !is_running(side) && check->ctl->interrupts == 0 && ctl_now() < end;) {
        if (has_failed(side, HELPER_UNIT, helper_since)) {
            found_helper_socket(check, side);
            return false;
        }
        if (has_failed(side, BROKER_UNIT, broker_since)) {
            found_broker(check, side);
            return false;
        }
        ctl_turn(check->ctl, LOOK_AGAIN, NULL);
    }
    return true; /* if it does not run even so, the call of its first property says why */
}

bool check_install(struct check *check, struct side *side)
{
    if (is_running(side) || !has_systemd(side))
        return true;
    return check_files(check, side) && check_start(check, side);
}
