/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The tunnel and what libvirt's calls go by. */

#include "ctl/libvirt/internal.h"

int way_open(struct move *move, const char *ticket, struct trouble *trouble);

/* Whether the destination's half has failed, where its broker has news: sets move->far_broken. */
void way_look_far(struct move *move);

/* Ends both tunnels, unless they were there before. */
void way_undo(struct move *move);
