/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "broker/lifecycle.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "broker/log.h"
#include "common/clock.h"
#include "common/timer.h"

enum {
    STATUS_DELAY = 100000,   /* µs from a call to a new STATUS= */
    STATUS_PERIOD = 2000000, /* µs between two while migrations run */
    /* Together less than TimeoutStopSec= of the unit; docs/vmferryd.8.rst names them. */
    HEARD_MAX = 2000000,  /* µs until the service manager has read what it was told */
    LEAVE_MAX = 11000000, /* µs until calls that came before are answered: polkit may take 10 s */
};

/* ---- STATUS= ---- */

static int on_status(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct lifecycle *lifecycle = userdata;
    char text[sizeof(lifecycle->said)];

    lifecycle->ops->status(lifecycle->userdata, text, sizeof(text));
    if (strcmp(text, lifecycle->said) != 0) {
        strcpy(lifecycle->said, text);
        sd_notifyf(0, "STATUS=%s", text);
    }
    if (lifecycle->ops->running(lifecycle->userdata))
        timer_set(source, STATUS_PERIOD);
    return 0;
}

/* ---- Idle ---- */

/* Each call puts the end off, whatever it asks for. */
static int on_call(sd_bus_message *m, void *userdata, sd_bus_error *error)
{
    struct lifecycle *lifecycle = userdata;

    if (!sd_bus_message_is_method_call(m, NULL, NULL))
        return 0;
    lifecycle->last_call = turn_now(lifecycle->event);
    if (!lifecycle->ops->running(lifecycle->userdata)) /* else it comes round by itself */
        sd_event_source_set_time_relative(lifecycle->status, STATUS_DELAY);
    sd_event_source_set_enabled(lifecycle->status, SD_EVENT_ONESHOT);
    return 0;
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
static int leave(struct lifecycle *lifecycle)
{
    if (!lifecycle->ops->needed(lifecycle->userdata))
        return sd_event_exit(lifecycle->event, EXIT_IDLE);
    log_event(LOG_INFO, NULL, NULL, "There were calls while it was ending: the next one goes on from here.");
    return sd_event_exit(lifecycle->event, 0);
}

static int on_leave_max(sd_event_source *source, uint64_t usec, void *userdata)
{
    return leave(userdata);
}

/* After each event. */
static int on_event(sd_event_source *source, void *userdata)
{
    struct lifecycle *lifecycle = userdata;

    return lifecycle->ops->answering(lifecycle->userdata) ? 0 : leave(lifecycle);
}

/* The name is gone: calls now start another broker. What came before was read before this reply. */
static int on_name_released(sd_bus_message *reply, void *userdata, sd_bus_error *error)
{
    struct lifecycle *lifecycle = userdata;
    int r;

    if (!lifecycle->ops->answering(lifecycle->userdata))
        return leave(lifecycle);
    r = sd_event_add_post(lifecycle->event, &lifecycle->unanswered, on_event, lifecycle);
    if (r >= 0)
        r = timer_arm(lifecycle->event, &lifecycle->leave, LEAVE_MAX, on_leave_max, lifecycle);
    return r < 0 ? leave(lifecycle) : 0;
}

/*
 *     idle --> STOPPING=1, barrier --> ReleaseName --> its reply --> nothing left to answer: EXIT_IDLE
 *                                                          '------> LEAVE_MAX is over, or work came: 0
 */
static int on_idle(sd_event_source *source, uint64_t usec, void *userdata)
{
    struct lifecycle *lifecycle = userdata;
    uint64_t since = turn_now(lifecycle->event) - lifecycle->last_call;

    if (lifecycle->ops->needed(lifecycle->userdata)) {
        timer_set(source, lifecycle->idle_timeout);
    } else if (since < lifecycle->idle_timeout) {
        timer_set(source, lifecycle->idle_timeout - since);
    } else {
        log_event(LOG_INFO, NULL, NULL,
                  "Nothing to do for %" PRIu64 " s: ending. The next call starts a new one.",
                  lifecycle->idle_timeout / 1000000);
        say_stopping();
        if (sd_bus_release_name_async(lifecycle->bus, NULL, lifecycle->name, on_name_released, lifecycle) < 0)
            return sd_event_exit(lifecycle->event, 0);
    }
    return 0;
}

/* ---- Its begin and end ---- */

int lifecycle_set_idle_timeout(struct lifecycle *lifecycle, uint64_t idle_timeout)
{
    /* A broker that nothing would start again does not end by itself. */
    lifecycle->idle_timeout = getenv("NOTIFY_SOCKET") ? idle_timeout : 0;
    lifecycle->idle = sd_event_source_disable_unref(lifecycle->idle);
    return lifecycle->idle_timeout == 0
               ? 0
               : timer_arm(lifecycle->event, &lifecycle->idle, lifecycle->idle_timeout, on_idle, lifecycle);
}

int lifecycle_start(struct lifecycle *lifecycle, uint64_t idle_timeout)
{
    int r;

    r = sd_event_set_watchdog(lifecycle->event, true);
    if (r >= 0)
        r = timer_arm(lifecycle->event, &lifecycle->status, 0, on_status, lifecycle);
    if (r >= 0)
        r = lifecycle_set_idle_timeout(lifecycle, idle_timeout);
    if (r >= 0)
        r = sd_bus_add_filter(lifecycle->bus, NULL, on_call, lifecycle);
    if (r < 0)
        return r;
    lifecycle->last_call = turn_now(lifecycle->event);
    sd_notify(0, "READY=1");
    return 0;
}

void lifecycle_stop(struct lifecycle *lifecycle)
{
    sd_notify(0, "STOPPING=1\nSTATUS=Ending.");
    lifecycle->idle = sd_event_source_disable_unref(lifecycle->idle);
    lifecycle->leave = sd_event_source_disable_unref(lifecycle->leave);
    lifecycle->unanswered = sd_event_source_disable_unref(lifecycle->unanswered);
    lifecycle->status = sd_event_source_disable_unref(lifecycle->status);
}
