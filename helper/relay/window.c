/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "helper/relay/window.h"

void window_on_sent(struct window *window, uint64_t cursor, bool full, uint64_t now)
{
    if (!window->waits) {
        window->waits = true;
        window->mark = cursor;
        window->sent_at = now;
        window->full = false;
    }
    window->full = window->full || full;
}

bool window_on_ack(struct window *window, uint64_t acked, size_t size, uint64_t now)
{
    uint64_t took;

    if (!window->waits || acked < window->mark)
        return false;
    window->waits = false;
    took = now - window->sent_at;
    took = took > 0 ? took : 1;
    if (window->shortest == 0 || took < window->shortest)
        window->shortest = took;
    if (++window->looks < WINDOW_LOOKS)
        return false;
    window->looks = WINDOW_LOOKS;
    if (!window->full || took > 2 * window->shortest || size / took >= WINDOW_RATE)
        return false;
    window->looks = WINDOW_LOOKS - 2; /* the next one went out before a larger window has made a queue */
    return true;
}

void window_forget(struct window *window)
{
    window->waits = false;
}
