/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/control/control.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "helper/control/internal.h"
#include "helper/control/outbox.h"
#include "helper/limits.h"

/* The next whole frame that is there, which is taken out. */
static enum verdict next_frame(struct control *control, struct frame *ret, const char **ret_why)
{
    struct ring *in = &control->in;
    uint8_t buf[FRAME_MAX];
    size_t used, n = ring_copy(in, buf, sizeof(buf));
    enum verdict verdict = frame_decode(buf, n, ret, &used, ret_why);

    if (verdict == VERDICT_OK) {
        ring_advance(in, used);
        ring_release(in, in->cursor);
    }
    return verdict;
}

static void parse_frames(struct control *control)
{
    while (!*control->halted) {
        struct frame frame;
        const char *why;
        enum verdict verdict = next_frame(control, &frame, &why);

        if (verdict == VERDICT_MORE)
            return;
        if (verdict == VERDICT_OK)
            control->events->frame(control->userdata, &frame);
        else
            control->events->violated(control->userdata, why);
    }
}

void control_read(struct control *control)
{
    struct carrier *carrier = control->carrier;
    ssize_t n;

    control_cork(control); /* one answer to all that is there */
    do {
        /* The ring has room: all whole frames were taken out, and one that is not is shorter than FRAME_MAX.
         * `carrier` stays valid although frames have handlers, since a loss is cleaned up from the loop
         * (session_interrupt()).
         */
        n = carrier_recv(carrier, &control->in, ring_room(&control->in));
        if (n > 0) {
            control->silence = 0;
            parse_frames(control);
        }
    } while (n > 0 && !*control->halted && carrier_holds_input(carrier));
    control_uncork(control);
    if (!*control->halted && (n == 0 || (n < 0 && n != -EAGAIN)))
        control->events->lost(control->userdata, n == 0 ? "the peer closed it" : strerror((int)-n));
}

static void on_ready(struct carrier *carrier, uint32_t revents, void *userdata)
{
    struct control *control = userdata;

    if (control->lingers)
        control_linger(control);
    else
        control_read(control);
}

int control_adopt(struct control *control, struct carrier *carrier)
{
    int r;

    control->carrier = carrier;
    control->silence = 0;
    control->pinged = control->measured = 0;
    r = carrier_attach(carrier, control->event, on_ready, control);
    if (r >= 0)
        r = ring_init(&control->in, control->pool, CONTROL_RING);
    if (r >= 0)
        r = ring_init(&control->out, control->pool, CONTROL_RING);
    return r;
}

void control_clear(struct control *control)
{
    control->carrier = carrier_free(control->carrier);
    ring_clear(&control->in);
    ring_clear(&control->out);
}

int control_fd(const struct control *control)
{
    return control->carrier ? control->carrier->fd : -1;
}

int control_export_key(struct control *control, uint8_t ret[static KEY_SIZE])
{
    return control->carrier->ops->export_key(control->carrier, ret);
}

/* A loss is often noticed by a send that fails, while the peer's ABORT, its reason to close, still waits to
 * be read. Frames before it are passed over: nothing is acted upon any more. */
bool control_last_word(struct control *control, struct frame *ret)
{
    struct ring *in = &control->in;
    size_t left = CONTROL_RING; /* a peer that goes on and on has no last word */
    const char *why;
    ssize_t n;

    if (!control->carrier)
        return false;
    do {
        while (next_frame(control, ret, &why) == VERDICT_OK)
            if (ret->type == FRAME_ABORT)
                return true;
        n = carrier_recv(control->carrier, in, ring_room(in) < left ? ring_room(in) : left);
        left -= n > 0 ? (size_t)n : 0;
    } while (n > 0 && left > 0);
    return false;
}

void control_linger(struct control *control)
{
    control->lingers = true;
    if (!control->carrier || !carrier_linger(control->carrier, &control->out))
        control->events->drained(control->userdata);
}

int control_new(sd_event *event, struct ring_pool *pool, const bool *halted,
                const struct control_events *events, void *userdata, struct control **ret)
{
    struct control *control = calloc(1, sizeof(*control));

    if (!control)
        return -ENOMEM;
    *control = (struct control){
        .event = event,
        .pool = pool,
        .halted = halted,
        .events = events,
        .userdata = userdata,
        .in = {.pipe = -1}, /* for last words where there was no memory for the rings */
        .out = {.pipe = -1},
    };
    *ret = control;
    return 0;
}

struct control *control_free(struct control *control)
{
    if (control)
        control_clear(control);
    free(control);
    return NULL;
}
