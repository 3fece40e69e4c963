/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "event.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/queue.h>

#include "kernel.h"

enum kind {
    OF_IO,
    OF_TIME,
    OF_DEFER,
};

#define DEFAULT_ACCURACY 250000 /* µs: of sd_event_add_time(3) */

struct sd_event_source {
    LIST_ENTRY(sd_event_source) entry;
    sd_event *event;
    enum kind kind;
    int enabled;
    bool runs, dead;
    int fd;
    uint32_t events;
    uint64_t at, accuracy, late;
    sd_event_io_handler_t on_io;
    sd_event_time_handler_t on_time;
    sd_event_handler_t on_defer;
    void *userdata;
};

struct sd_event {
    LIST_HEAD(, sd_event_source) sources;
    unsigned n;
    uint64_t now;
    bool exits;
};

int sd_event_new(sd_event **ret)
{
    *ret = calloc(1, sizeof(**ret));
    if (!*ret)
        return -ENOMEM;
    (*ret)->now = sim.now;
    return 0;
}

sd_event *sd_event_unref(sd_event *event)
{
    if (event && event->n > 0)
        fault("%u event sources are left", event->n);
    free(event);
    return NULL;
}

int sd_event_now(sd_event *event, clockid_t clock, uint64_t *usec)
{
    *usec = event->now;
    return 0;
}

int sd_event_exit(sd_event *event, int code)
{
    event->exits = true;
    return 0;
}

static int add(sd_event *event, sd_event_source **ret, enum kind kind, int enabled, void *userdata)
{
    sd_event_source *source = calloc(1, sizeof(*source));

    if (!source)
        return -ENOMEM;
    *source = (sd_event_source){.event = event, .kind = kind, .enabled = enabled, .userdata = userdata};
    LIST_INSERT_HEAD(&event->sources, source, entry);
    event->n++;
    *ret = source;
    return 0;
}

int sd_event_add_io(sd_event *event, sd_event_source **ret, int fd, uint32_t events,
                    sd_event_io_handler_t handler, void *userdata)
{
    int r = add(event, ret, OF_IO, SD_EVENT_ON, userdata);

    if (r < 0)
        return r;
    (*ret)->fd = fd;
    (*ret)->events = events;
    (*ret)->on_io = handler;
    return 0;
}

static void set_time(sd_event_source *source, uint64_t at)
{
    source->at = at;
    source->late = pick(source->accuracy + 1);
}

int sd_event_add_time(sd_event *event, sd_event_source **ret, clockid_t clock, uint64_t usec,
                      uint64_t accuracy, sd_event_time_handler_t handler, void *userdata)
{
    int r = add(event, ret, OF_TIME, SD_EVENT_ONESHOT, userdata);

    if (r < 0)
        return r;
    (*ret)->accuracy = accuracy > 0 ? accuracy : DEFAULT_ACCURACY;
    (*ret)->on_time = handler;
    set_time(*ret, usec);
    return 0;
}

int sd_event_add_time_relative(sd_event *event, sd_event_source **ret, clockid_t clock, uint64_t usec,
                               uint64_t accuracy, sd_event_time_handler_t handler, void *userdata)
{
    return sd_event_add_time(event, ret, clock, event->now + usec, accuracy, handler, userdata);
}

int sd_event_add_defer(sd_event *event, sd_event_source **ret, sd_event_handler_t handler, void *userdata)
{
    int r = add(event, ret, OF_DEFER, SD_EVENT_ONESHOT, userdata);

    if (r >= 0)
        (*ret)->on_defer = handler;
    return r;
}

sd_event_source *sd_event_source_disable_unref(sd_event_source *source)
{
    if (!source)
        return NULL;
    LIST_REMOVE(source, entry);
    source->event->n--;
    source->enabled = SD_EVENT_OFF;
    if (source->runs)
        source->dead = true;
    else
        free(source);
    return NULL;
}

int sd_event_source_set_enabled(sd_event_source *source, int enabled)
{
    source->enabled = enabled;
    return 0;
}

int sd_event_source_get_enabled(sd_event_source *source, int *ret)
{
    *ret = source->enabled;
    return source->enabled != SD_EVENT_OFF;
}

int sd_event_source_set_io_events(sd_event_source *source, uint32_t events)
{
    source->events = events;
    return 0;
}

int sd_event_source_set_time(sd_event_source *source, uint64_t usec)
{
    set_time(source, usec);
    return 0;
}

int sd_event_source_set_time_relative(sd_event_source *source, uint64_t usec)
{
    set_time(source, source->event->now + usec);
    return 0;
}

int sd_event_loop(sd_event *event)
{
    fault("a helper's own loop runs");
}

int sd_event_run(sd_event *event, uint64_t timeout)
{
    fault("a helper's own loop runs");
}

/* ---- For the world ---- */

static uint32_t revents_of(const sd_event_source *source)
{
    return file_poll(source->fd) & (source->events | EPOLLERR | EPOLLHUP);
}

static bool is_due(const sd_event_source *source)
{
    if (source->enabled == SD_EVENT_OFF)
        return false;
    if (source->kind == OF_IO)
        return revents_of(source) != 0;
    return source->kind == OF_DEFER || source->at + source->late <= sim.now;
}

unsigned event_due(sd_event *event)
{
    sd_event_source *source;
    unsigned n = 0;

    LIST_FOREACH(source, &event->sources, entry)
    {
        n += is_due(source);
    }
    return n;
}

static int dispatch(sd_event_source *source)
{
    switch (source->kind) {
    case OF_IO:
        return source->on_io(source, source->fd, revents_of(source), source->userdata);
    case OF_TIME:
        return source->on_time(source, source->at, source->userdata);
    default:
        return source->on_defer(source, source->userdata);
    }
}

bool event_turn(sd_event *event)
{
    unsigned n = event_due(event);
    sd_event_source *source;
    uint64_t which;
    int r;

    if (n == 0)
        return false;
    which = pick(n);
    LIST_FOREACH(source, &event->sources, entry)
    {
        if (is_due(source) && which-- == 0)
            break;
    }
    event->now = sim.now;
    if (source->enabled == SD_EVENT_ONESHOT)
        source->enabled = SD_EVENT_OFF;
    source->runs = true;
    r = dispatch(source);
    source->runs = false;
    if (source->dead)
        free(source);
    else if (r < 0)
        source->enabled = SD_EVENT_OFF;
    return true;
}

uint64_t event_next(const sd_event *event)
{
    const sd_event_source *source;
    uint64_t next = NEVER;

    LIST_FOREACH(source, &event->sources, entry)
    {
        if (source->kind == OF_TIME && source->enabled != SD_EVENT_OFF)
            next = earlier(next, source->at + source->late);
    }
    return next;
}

bool event_exits(const sd_event *event)
{
    return event->exits;
}

unsigned event_count(const sd_event *event)
{
    return event->n;
}
