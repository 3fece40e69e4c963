/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/session/session.h"

#include <errno.h>

/* The last words on a control connection: the peer's where it is lost, this side's where the migration is
 * over. */

void control_last_word(struct session *session)
{
    struct ring *in = &session->control.in;
    size_t left = CONTROL_RING; /* a peer that goes on and on has no last word */
    ssize_t n;

    if (!session->control.carrier)
        return;
    do {
        uint8_t buf[FRAME_MAX];
        struct frame frame;
        const char *why;
        size_t used;

        while (frame_decode(buf, ring_copy(in, buf, sizeof(buf)), &frame, &used, &why) == VERDICT_OK) {
            ring_advance(in, used);
            ring_release(in, in->cursor);
            if (frame.type == FRAME_ABORT) {
                session_end(session, frame.refusal.error, false, "%s", frame.refusal.text);
                return;
            }
        }
        n = carrier_recv(session->control.carrier, in, ring_room(in) < left ? ring_room(in) : left);
        left -= n > 0 ? (size_t)n : 0;
    } while (n > 0 && left > 0);
}

void control_linger(struct session *session)
{
    struct control *control = &session->control;

    if (!control->carrier || !carrier_linger(control->carrier, &control->out))
        link_exit(session->link);
}
