/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/lifecycle.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "broker/log.h"
#include "broker/manager.h"
#include "broker/migration/migration.h"

enum {
    STATUS_DELAY = 100000,   /* µs from a call to a new STATUS= */
    STATUS_PERIOD = 2000000, /* µs between two while migrations run */
    /* Together less than TimeoutStopSec= of the unit; docs/vmferryd.8.rst names them. */
    HEARD_MAX = 2000000,  /* µs until the service manager has read what it was told */
    LEAVE_MAX = 11000000, /* µs until calls that came before are answered: polkit may take 10 s */
};

/* ---- STATUS= ---- */

static void say_status(struct manager *manager)
{
    struct lifecycle *lifecycle = &manager->lifecycle;
    uint32_t running[2] = {0};
    const struct migration *migration;
    uint64_t rate = 0;
    char text[sizeof(lifecycle->said)];

    TAILQ_FOREACH(migration, &manager->migrations, entry)
    {
        if (migration->state == STATE_FINISHED)
            continue;
        running[migration->role]++;
        rate += stats_page_rate(&migration->page);
    }
    if (running[ROLE_INCOMING] + running[ROLE_OUTGOING] > 0)
        snprintf(text, sizeof(text),
                 "Migrations: %" PRIu32 " incoming, %" PRIu32 " outgoing; %" PRIu64 ".%" PRIu64 " MB/s.",
                 running[ROLE_INCOMING], running[ROLE_OUTGOING], rate / 1000000, rate / 100000 % 10);
    else
        snprintf(text, sizeof(text), "No migration; %" PRIu32 " finished.", manager->n_finished);
    if (strcmp(text, lifecycle->said) == 0)
        return;
    strcpy(lifecycle->said, text);
    sd_notifyf(0, "STATUS=%s", text);
}

static int on_status(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct manager *manager = userdata;

    (void)usec;
    say_status(manager);
    if (manager->n_running > 0) {
        sd_event_source_set_time_relative(source, STATUS_PERIOD);
        sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
    }
    return 0;
}

/* ---- Idle ---- */

static uint64_t now_of(struct manager *manager)
{
    uint64_t now = 0;

    sd_event_now(manager->event, CLOCK_MONOTONIC, &now);
    return now;
}

/* Somebody has called, whatever it was. */
static int on_call(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct manager *manager = userdata;
    struct lifecycle *lifecycle = &manager->lifecycle;

    (void)error;
    if (!sd_bus_message_is_method_call(m, NULL, NULL))
        return 0;
    lifecycle->last_call = now_of(manager);
    if (manager->n_running == 0) /* else it comes round by itself */
        sd_event_source_set_time_relative(lifecycle->status, STATUS_DELAY);
    sd_event_source_set_enabled(lifecycle->status, SD_EVENT_ONESHOT);
    return 0;
}

static bool is_needed(const struct manager *manager)
{
    return !TAILQ_EMPTY(&manager->migrations) || manager->n_calls > 0;
}

static void wait_for_idle(struct manager *manager, uint64_t usec)
{
    sd_event_source_set_time_relative(manager->lifecycle.idle, usec);
    sd_event_source_set_enabled(manager->lifecycle.idle, SD_EVENT_ONESHOT);
}

/*
 * The service manager hears of the end first, the bus only then. From the moment when the name is gone a call
 * makes the bus ask for a start, and of a unit that it takes for a running one the manager would say that
 * there is nothing to start. One that stops it starts again when it has ended. There is no way back from
 * that.
 */
static void say_stopping(void)
{
    int r;

    sd_notify(0, "STOPPING=1\nSTATUS=Ending.");
    r = sd_notify_barrier(0, HEARD_MAX);
    if (r < 0)
        log_event(LOG_WARNING, NULL, NULL,
                  "The service manager does not say that it has heard of the end: %s.", strerror(-r));
}

/* What has been begun meanwhile is for the next one: any status but EXIT_IDLE makes systemd start it. */
static int leave(struct manager *manager)
{
    if (!is_needed(manager))
        return sd_event_exit(manager->event, EXIT_IDLE);
    log_event(LOG_INFO, NULL, NULL, "There were calls while it was ending: the next one goes on from here.");
    return sd_event_exit(manager->event, 0);
}

static int on_leave_max(sd_event_source *source, uint64_t usec, void *userdata)
{
    (void)source;
    (void)usec;
    return leave(userdata);
}

/* After each event. */
static int on_event(sd_event_source *source, void *userdata)
{
    struct manager *manager = userdata;

    (void)source;
    return manager->n_calls > 0 ? 0 : leave(manager);
}

/* The name is gone: calls now start another broker. What came before was read before this reply. */
static int on_name_released(sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    struct manager *manager = userdata;
    struct lifecycle *lifecycle = &manager->lifecycle;
    int r;

    (void)reply;
    (void)error;
    if (manager->n_calls == 0)
        return leave(manager);
    r = sd_event_add_post(manager->event, &lifecycle->unanswered, on_event, manager);
    if (r >= 0)
        r = sd_event_add_time_relative(manager->event, &lifecycle->leave, CLOCK_MONOTONIC, LEAVE_MAX, 0,
                                       on_leave_max, manager);
    return r < 0 ? leave(manager) : 0;
}

static int on_idle(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct manager *manager = userdata;
    struct lifecycle *lifecycle = &manager->lifecycle;
    uint64_t since = now_of(manager) - lifecycle->last_call;

    (void)source;
    (void)usec;
    if (is_needed(manager)) {
        wait_for_idle(manager, lifecycle->idle_timeout);
    } else if (since < lifecycle->idle_timeout) {
        wait_for_idle(manager, lifecycle->idle_timeout - since);
    } else {
        log_event(LOG_INFO, NULL, NULL,
                  "Nothing to do for %" PRIu64 " s: ending. The next call starts a new one.",
                  lifecycle->idle_timeout / 1000000);
        say_stopping();
        if (sd_bus_release_name_async(manager->bus, NULL, BUS_NAME, on_name_released, manager) < 0)
            return sd_event_exit(manager->event, 0);
    }
    return 0;
}

/* ---- Its begin and end ---- */

int lifecycle_start(struct manager *manager)
{
    struct lifecycle *lifecycle = &manager->lifecycle;
    int r;

    /* What nothing would start again does not end by itself. */
    if (getenv("NOTIFY_SOCKET"))
        lifecycle->idle_timeout = manager->config->idle_timeout;
    r = sd_event_set_watchdog(manager->event, true);
    if (r >= 0)
        r = sd_event_add_time_relative(manager->event, &lifecycle->status, CLOCK_MONOTONIC, 0, STATUS_DELAY,
                                       on_status, manager);
    if (r >= 0 && lifecycle->idle_timeout > 0)
        r = sd_event_add_time_relative(manager->event, &lifecycle->idle, CLOCK_MONOTONIC,
                                       lifecycle->idle_timeout, 0, on_idle, manager);
    if (r >= 0)
        r = sd_bus_add_filter(manager->bus, NULL, on_call, manager);
    if (r < 0)
        return r;
    lifecycle->last_call = now_of(manager);
    sd_notify(0, "READY=1");
    return 0;
}

void lifecycle_stop(struct manager *manager)
{
    struct lifecycle *lifecycle = &manager->lifecycle;

    sd_notify(0, "STOPPING=1\nSTATUS=Ending.");
    lifecycle->idle = sd_event_source_disable_unref(lifecycle->idle);
    lifecycle->leave = sd_event_source_disable_unref(lifecycle->leave);
    lifecycle->unanswered = sd_event_source_disable_unref(lifecycle->unanswered);
    lifecycle->status = sd_event_source_disable_unref(lifecycle->status);
}
