/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Marks: a preamble goes in clear, and its id is no secret. A mark is a number that each connection of a key
 * has another one of, and a MAC over it, with which the accepting side tells the peer that holds the key from
 * others before it spends a handshake on them. It proves nothing else: the handshake does.
 */

#include <stdbool.h>
#include <stdint.h>

#include "helper/protocol/greeting.h"
#include "helper/protocol/key.h"

/* The key of the marks of a connection with this key. 0 or a negative errno. */
int mark_key(const uint8_t key[static KEY_SIZE], uint64_t id, uint8_t ret[static KEY_SIZE]);

/* Fills the MAC of a preamble whose kind, id and number are there. 0 or a negative errno. */
int mark_make(const uint8_t key[static KEY_SIZE], struct preamble *preamble);

/* Whether its MAC is right; in constant time. */
bool mark_is_right(const uint8_t key[static KEY_SIZE], const struct preamble *preamble);

#define MARKS_BACK 1024 /* numbers below the highest one that are still taken */

/* Which numbers have come: each is taken once, so that a preamble that was listened to opens no door. */
struct mark_window {
    uint32_t highest;
    uint64_t seen[MARKS_BACK / 64]; /* by number % MARKS_BACK */
};

/* False where it has come before, or is too old to tell. */
bool mark_window_take(struct mark_window *window, uint32_t number);
