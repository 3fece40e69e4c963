/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * When a window is too small. What is not acknowledged is kept, at most a window of it; so a channel goes no
 * faster than window / round trip. Where that is the bound, the window is full while all of it is on its way,
 * and its acknowledgements come about a round trip after it went out. Where the peer's QEMU or the network is
 * the bound, they come later than that, for what is sent waits in a queue: a larger window would only make
 * that longer. So the time from a byte's sending to its acknowledgement is measured, one byte at a time, and
 * held against the shortest such time.
 *
 * Does no I/O, and knows no clock: `now` is µs of any clock that does not go back.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Times to measure before the first step: the first ones have QEMU's start in them. */
#define WINDOW_LOOKS 4
/* Bytes per µs, faster than any channel is: a window that lets that through will do. */
#define WINDOW_RATE ((uint64_t)4096)

struct window {
    uint64_t mark;     /* the offset whose acknowledgement is waited for */
    uint64_t sent_at;  /* µs, when all before it was sent */
    uint64_t shortest; /* µs; 0: nothing was measured yet */
    unsigned looks;
    bool waits; /* there is such an offset */
    bool full;  /* since then all of the window was on its way at once */
};

/* All up to here was sent; full: that is a whole window, and QEMU has more. */
void window_on_sent(struct window *window, uint64_t cursor, bool full, uint64_t now);

/* All up to here is acknowledged. Whether a window of size bytes is what bounds the channel. */
bool window_on_ack(struct window *window, uint64_t acked, size_t size, uint64_t now);

/* What was sent is sent again: what is under way says nothing. */
void window_forget(struct window *window);
