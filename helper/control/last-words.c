/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/session/session.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* The last words on a control connection: the peer's where it is lost, this side's where the migration is
 * over. */

enum { LINGER_READS = 64 /* of a turn */ };

void control_last_word(struct session *session)
{
    struct ring *in = &session->control.in;
    size_t left = SESSION_CONTROL_RING; /* a peer that goes on and on has no last word */
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
    uint8_t buf[4096];
    struct iovec iov = {buf, sizeof(buf)};
    ssize_t n;

    if (!control->carrier) {
        link_exit(session->link);
        return;
    }
    n = carrier_send(control->carrier, &control->out);
    if (n >= 0 || n == -EAGAIN) {
        if (ring_unsent(&control->out) > 0 || control->carrier->ops->holds_output(control->carrier)) {
            carrier_watch(control->carrier, EPOLLOUT);
            return;
        }
        /* A close with unread bytes would reset the connection and take the last frame with it. */
        shutdown(control->carrier->fd, SHUT_WR);
        for (int i = 0; i < LINGER_READS && (n = socket_recv(control->carrier->fd, &iov, 1)) > 0; i++)
            ;
        if (n > 0 || n == -EAGAIN) {
            carrier_watch(control->carrier, EPOLLIN);
            return;
        }
    }
    carrier_watch(control->carrier, 0);
    link_exit(session->link);
}
