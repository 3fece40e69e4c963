/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the rigs of the helper's objects stand on: an event loop, and the broker's end of the link. */

#include "test-util.h"

#include <systemd/sd-event.h>

#include "helper/carrier/raw.h"
#include "helper/link.h"
#include "helper/protocol/frame.h"

struct desk {
    sd_event *event;
    struct link link;
    int broker;
    char logged[8192]; /* what was said for the broker's log, a line each; the first of it */
};

static inline void desk_ignores(struct link *link, const union message *m, int fd, void *userdata)
{
    if (fd >= 0)
        close(fd);
}

static inline void desk_is_alone(struct link *link, const char *why, void *userdata)
{
}

static inline void desk_init(struct desk *desk)
{
    int pair[2];

    assert_true(sd_event_new(&desk->event) >= 0);
    test_pair(SOCK_SEQPACKET, 0, pair);
    assert_true(link_init(&desk->link, desk->event, pair[0]) >= 0);
    link_set_handlers(&desk->link, desk_ignores, desk_is_alone, NULL);
    desk->link.phase = PHASE_RELAY;
    desk->broker = pair[1];
}

static inline void desk_clear(struct desk *desk)
{
    link_clear(&desk->link);
    sd_event_unref(desk->event);
    if (desk->broker >= 0)
        close(desk->broker);
}

/* Turns the loop until nothing is left to do. */
static inline void desk_run(struct desk *desk)
{
    for (int i = 0; i < 10000 && sd_event_get_state(desk->event) != SD_EVENT_FINISHED; i++)
        if (sd_event_run(desk->event, 0) <= 0)
            return;
}

static inline void desk_notes(struct desk *desk, const struct message_log *m)
{
    size_t n = strlen(desk->logged);

    snprintf(desk->logged + n, sizeof(desk->logged) - n, "%s\n", m->text);
}

/* The next message to the broker, log lines apart: its type, or 0. */
static inline enum message_type desk_heard(struct desk *desk, union message *ret)
{
    int fd, r;

    do {
        r = message_recv(desk->broker, TO_BROKER, PHASE_RELAY | PHASE_ENDED, ret, &fd);
        if (r > 0 && ret->header.type == MESSAGE_LOG)
            desk_notes(desk, &ret->log);
    } while (r > 0 && ret->header.type == MESSAGE_LOG);
    return r > 0 ? ret->header.type : (enum message_type)0;
}

/* The peer's end of a control connection, and what has come there. */
struct wire {
    int fd;
    uint8_t buf[65536];
    size_t begin, end;
};

/* The next frame on the wire: its type, or 0. */
static inline enum frame_type wire_heard(struct wire *wire, struct frame *ret)
{
    const char *why;
    size_t used;
    ssize_t n;

    if (wire->begin == wire->end)
        wire->begin = wire->end = 0;
    n = recv(wire->fd, wire->buf + wire->end, sizeof(wire->buf) - wire->end, MSG_DONTWAIT);
    wire->end += n > 0 ? (size_t)n : 0;
    if (frame_decode(wire->buf + wire->begin, wire->end - wire->begin, ret, &used, &why) != VERDICT_OK)
        return (enum frame_type)0;
    wire->begin += used;
    return ret->type;
}

static inline void wire_says(struct wire *wire, const struct frame *frame)
{
    uint8_t buf[FRAME_MAX];
    size_t size = frame_encode(frame, buf);

    assert_int_equal(send(wire->fd, buf, size, MSG_NOSIGNAL), size);
}
