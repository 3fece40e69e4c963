/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/control/outbox.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>

#include "helper/control/internal.h"

enum { CORK_MAX = 16 * 1024 /* bytes that wait for more to go with them */ };

static void watch(struct control *control)
{
    bool waits = ring_unsent(&control->out) > 0 || carrier_holds_output(control->carrier);

    carrier_watch(control->carrier, EPOLLIN | (waits ? EPOLLOUT : 0));
}

static void flush(struct control *control)
{
    ssize_t n;

    do {
        n = carrier_send(control->carrier, &control->out);
        ring_release(&control->out, control->out.cursor);
    } while (n > 0 && ring_unsent(&control->out) > 0);
    if (n < 0 && n != -EAGAIN)
        control->events->lost(control->userdata, strerror((int)-n));
    else
        watch(control);
}

/* It may find the connection lost: then `halted` is set when it returns, and the caller must not go on as if
 * the frame were said. The carrier is still there until the loop's next turn. */
void control_send(struct control *control, const struct frame *frame)
{
    uint8_t buf[FRAME_MAX];

    if (!control->carrier || *control->halted)
        return;
    if (ring_append(&control->out, buf, frame_encode(frame, buf)) < 0) {
        control->events->lost(control->userdata, "the peer does not read it any more");
        return;
    }
    if (!control->corked || ring_unsent(&control->out) >= CORK_MAX)
        flush(control);
}

void control_leave_word(struct control *control, const struct frame *frame)
{
    uint8_t buf[FRAME_MAX];

    if (control->carrier)
        ring_append(&control->out, buf, frame_encode(frame, buf));
}

void control_cork(struct control *control)
{
    control->corked = true;
}

void control_uncork(struct control *control)
{
    control->corked = false;
    if (control->carrier && !*control->halted)
        flush(control);
}
