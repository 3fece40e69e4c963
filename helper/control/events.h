/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a control connection tells its owner. */

#include "helper/protocol/frame.h"

struct control;

struct control_events {
    void (*frame)(void *userdata, const struct frame *frame);
    /* Nothing more can be read or sent; for a sentence, without a full stop. */
    void (*lost)(void *userdata, const char *why);
    /* What came is no frame. */
    void (*violated)(void *userdata, const char *what);
    /* The last words are out, or cannot be said: see control_linger(). */
    void (*drained)(void *userdata);
};
