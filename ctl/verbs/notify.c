/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ctl/verbs/notify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "common/cleanup.h"
#include "ctl/bus/desktop.h"
#include "ctl/bus/record.h"
#include "ctl/bus/standing.h"
#include "ctl/units.h"

#define FROM_BROKER "type='signal',sender='" BROKER_NAME "',"
#define TITLE_MAX   320

/*
 * A migration of this user. Signals only say that it must be looked at: the look is one call, in the order of
 * the story, and not in a callback.
 */
struct watched {
    LIST_ENTRY(watched) list;
    bool look;            /* something has changed */
    bool gone;            /* it was forgotten */
    bool seen;            /* it was looked at before: what it had come to by then is no news */
    uint64_t interrupted; /* CLOCK_MONOTONIC µs; 0: it is not */
    bool warned;          /* the desktop was told of that */
    uint32_t shown;       /* the notification; 0: none yet */
    char told[16];        /* the end that was told */
    char path[];
};

struct notify {
    struct side side;
    sd_bus *desktop;
    bool restarted; /* another broker: signals may have been missed */
    LIST_HEAD(, watched) all;
};

static struct watched *watched_find(struct notify *notify, const char *path)
{
    struct watched *watched;

    LIST_FOREACH(watched, &notify->all, list)
    if (!watched->gone && strcmp(watched->path, path) == 0)
        return watched;
    return NULL;
}

/* It must be looked at; before the first look it is one that may be another user's. */
static struct watched *watched_add(struct notify *notify, const char *path)
{
    struct watched *watched = watched_find(notify, path);

    if (!watched) {
        watched = calloc(1, sizeof(*watched) + strlen(path) + 1);
        if (!watched)
            return NULL; /* one of which nothing is told */
        strcpy(watched->path, path);
        LIST_INSERT_HEAD(&notify->all, watched, list);
    }
    watched->look = true;
    return watched;
}

static void watched_free(struct watched *watched)
{
    LIST_REMOVE(watched, list);
    free(watched);
}

/* ---- Signals ---- */

static int on_added(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct watched *watched;
    const char *path;

    if (sd_bus_message_read(m, "o", &path) < 0)
        return 0;
    watched = watched_add(userdata, path);
    if (watched)
        watched->seen = true; /* it is new: all of it is news */
    return 0;
}

static int on_removed(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct watched *watched;
    const char *path;

    if (sd_bus_message_read(m, "o", &path) >= 0 && (watched = watched_find(userdata, path)))
        watched->gone = true;
    return 0;
}

/* Of state and outcome; how far QEMU is comes each second, and is nothing to tell. */
static int on_changed(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct watched *watched = watched_find(userdata, sd_bus_message_get_path(m));
    const char *name;

    if (!watched || sd_bus_message_skip(m, "s") < 0 || sd_bus_message_enter_container(m, 'a', "{sv}") < 0)
        return 0;
    while (sd_bus_message_enter_container(m, 'e', "sv") > 0 && sd_bus_message_read(m, "s", &name) > 0) {
        if (strcmp(name, "State") == 0 || strcmp(name, "Outcome") == 0)
            watched->look = true;
        if (sd_bus_message_skip(m, "v") < 0 || sd_bus_message_exit_container(m) < 0)
            break;
    }
    return 0;
}

static int on_owner(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct notify *notify = userdata;

    notify->restarted = true;
    return 0;
}

static int subscribe(struct notify *notify, struct trouble *trouble)
{
    static const struct {
        const char *match;
        sd_bus_message_handler_t handler;
    } matches[] = {
        {FROM_BROKER "interface='org.freedesktop.DBus.ObjectManager',member='InterfacesAdded'", on_added},
        {FROM_BROKER "interface='org.freedesktop.DBus.ObjectManager',member='InterfacesRemoved'", on_removed},
        {FROM_BROKER "interface='org.freedesktop.DBus.Properties',member='PropertiesChanged',"
                     "arg0='" MIGRATION_INTERFACE "'",
         on_changed},
        {"type='signal',sender='org.freedesktop.DBus',member='NameOwnerChanged',arg0='" BROKER_NAME "'",
         on_owner},
    };

    for (size_t i = 0; i < sizeof(matches) / sizeof(matches[0]); i++) {
        int r = sd_bus_add_match(notify->side.bus, NULL, matches[i].match, matches[i].handler, notify);

        if (r < 0)
            return trouble_set(trouble, STATUS_FAILED, "Cannot follow the broker%s: %s.", notify->side.where,
                               strerror(-r));
    }
    return 0;
}

/* All that are there. A broker that does not run has none, and is not started for this. */
static int list(struct notify *notify, struct trouble *trouble)
{
    _cleanup_(sd_bus_message_unrefp) sd_bus_message *m = NULL, *reply = NULL;
    _cleanup_(trouble_clear) struct trouble absent = {0};
    const char *path;
    uint32_t uid;

    if (side_message(&notify->side, BROKER_PATH, "org.vmferry.Broker1", "ListMigrations", &m, trouble) < 0)
        return -1;
    sd_bus_message_set_auto_start(m, false);
    if (side_send(&notify->side, m, 0, &reply, &absent, "Cannot list the migrations") < 0)
        return 0;
    if (sd_bus_message_enter_container(reply, 'a', "(ssssuo)") < 0)
        return 0;
    while (sd_bus_message_read(reply, "(ssssuo)", NULL, NULL, NULL, NULL, &uid, &path) > 0)
        if (uid == notify->side.uid)
            watched_add(notify, path);
    return 0;
}

/* ---- What is told ---- */

struct news {
    const char *end; /* as standing_outcome() calls it */
    const char *before, *after;
    enum urgency urgency;
};

#define VM        "VM '"
#define MIGRATION "The migration of VM '"

static const struct news interrupted = {"", MIGRATION, "' is interrupted", URGENCY_NORMAL};
static const struct news resumed = {"", MIGRATION, "' goes on", URGENCY_LOW};

static const struct news *news_of_end(const char *end)
{
    static const struct news ends[] = {
        {"moved", VM, "' has moved", URGENCY_NORMAL},
        {"not-moved", VM, "' was not moved", URGENCY_NORMAL},
        {"lost", VM, "' is lost", URGENCY_CRITICAL},
        {"unknown", "It is not known where VM '", "' runs", URGENCY_CRITICAL},
        {"carried", MIGRATION, "' has carried everything", URGENCY_NORMAL},
        {"cancelled", MIGRATION, "' was cancelled", URGENCY_NORMAL},
        {"timed-out", MIGRATION, "' timed out", URGENCY_NORMAL},
        {"failed", MIGRATION, "' failed", URGENCY_NORMAL},
    };
    size_t i = 0;

    while (i + 1 < sizeof(ends) / sizeof(ends[0]) && strcmp(ends[i].end, end) != 0)
        i++;
    return &ends[i];
}

/* One notification per migration: what is newer takes the place of what was shown. */
static void show(struct notify *notify, struct watched *watched, json_object *record, const struct news *news,
                 const char *text)
{
    char title[TITLE_MAX];

    snprintf(title, sizeof(title), "%s%s%s", news->before, record_text(record, "Vm"), news->after);
    desktop_show(notify->desktop, notify->side.ctl, &watched->shown, news->urgency, title, text);
}

static void tell_end(struct notify *notify, struct watched *watched, json_object *record)
{
    json_object *details = record_object(record, "Details");
    const char *end = standing_outcome(record), *reason = record_text(details, "reason");
    uint64_t downtime = record_number(details, "downtime-usec");
    char stood[UNITS_TEXT_MAX], text[64] = "";

    if (strcmp(watched->told, end) == 0)
        return;
    snprintf(watched->told, sizeof(watched->told), "%s", end);
    if (!watched->seen)
        return;
    if (downtime > 0) {
        format_time(downtime, stood);
        snprintf(text, sizeof(text), "It stood still for %s.", stood);
    }
    show(notify, watched, record, news_of_end(end),
         text[0] != '\0'     ? text
         : reason[0] != '\0' ? reason
                             : record_text(record, "ErrorMessage"));
}

static void tell_interruption(struct notify *notify, struct watched *watched, json_object *record)
{
    uint64_t after = notify->side.ctl->arguments.notify_after;
    char lost[UNITS_TEXT_MAX], text[64 + UNITS_TEXT_MAX];

    if (watched->interrupted == 0)
        watched->interrupted = ctl_now();
    if (watched->warned || ctl_now() - watched->interrupted < after)
        return;
    watched->warned = true;
    format_time(after, lost);
    snprintf(text, sizeof(text), "The network has been lost for %s.", lost);
    show(notify, watched, record, &interrupted, text);
}

static int look(struct notify *notify, struct watched *watched, struct trouble *trouble)
{
    _cleanup_json_ json_object *record = NULL;
    _cleanup_(trouble_clear) struct trouble unread = {0};

    watched->look = false;
    if (record_read(&notify->side, watched->path, MIGRATION_INTERFACE, &record, &unread) < 0) {
        watched->gone = true; /* since the signal */
        return sd_bus_is_open(notify->side.bus) > 0
                   ? 0
                   : trouble_set(trouble, STATUS_FAILED, "The connection to the bus%s is lost.",
                                 notify->side.where);
    }
    if (record_number(record, "OwnerUid") != notify->side.uid) {
        watched->gone = true;
        return 0;
    }
    if (standing_is_finished(record)) {
        watched->interrupted = 0;
        tell_end(notify, watched, record);
    } else if (strcmp(record_text(record, "State"), "interrupted") == 0) {
        tell_interruption(notify, watched, record);
    } else {
        watched->interrupted = 0;
        if (watched->warned)
            show(notify, watched, record, &resumed, "");
        watched->warned = false;
    }
    watched->seen = true;
    return 0;
}

/* ---- The loop ---- */

/* One that must be looked at, or NULL, and then how long nothing need be done; frees those that are gone. */
static struct watched *next(struct notify *notify, uint64_t *ret_pause)
{
    struct watched *watched, *after;
    uint64_t now = ctl_now();

    *ret_pause = UINT64_MAX;
    for (watched = LIST_FIRST(&notify->all); watched; watched = after) {
        uint64_t due = watched->interrupted + notify->side.ctl->arguments.notify_after;

        after = LIST_NEXT(watched, list);
        if (watched->gone)
            watched_free(watched);
        else if (watched->look || (watched->interrupted > 0 && !watched->warned && due <= now))
            return watched;
        else if (watched->interrupted > 0 && !watched->warned && due - now < *ret_pause)
            *ret_pause = due - now;
    }
    return NULL;
}

static int run(struct notify *notify, struct trouble *trouble)
{
    struct ctl *ctl = notify->side.ctl;
    struct watched *watched;
    uint64_t pause;

    while (ctl->interrupts == 0) {
        if (notify->restarted) {
            notify->restarted = false;
            if (list(notify, trouble) < 0)
                return -1;
        }
        watched = next(notify, &pause);
        if (watched ? look(notify, watched, trouble) < 0 : ctl_turn(ctl, pause, trouble) < 0)
            return -1;
        if (sd_bus_is_open(notify->side.bus) <= 0)
            return trouble_set(trouble, STATUS_FAILED, "The connection to the bus%s is lost.",
                               notify->side.where);
    }
    return STATUS_DONE;
}

int notify_run(struct ctl *ctl, struct trouble *trouble)
{
    struct notify notify = {.all = LIST_HEAD_INITIALIZER(notify.all)};
    int r = -1;

    if (side_open(ctl, &notify.side, trouble) >= 0 && desktop_open(ctl, &notify.desktop, trouble) >= 0 &&
        ctl_catch_signals(ctl, trouble) >= 0 && subscribe(&notify, trouble) >= 0 &&
        list(&notify, trouble) >= 0) {
        ctl_say(ctl, "The desktop is told what becomes of your migrations%s.", notify.side.where);
        r = run(&notify, trouble);
    }
    while (!LIST_EMPTY(&notify.all))
        watched_free(LIST_FIRST(&notify.all));
    sd_bus_close_unref(notify.desktop);
    side_close(&notify.side);
    return r;
}
