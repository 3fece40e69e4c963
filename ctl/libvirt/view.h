/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How far it is, for the user and the brokers. */

#include "ctl/libvirt/internal.h"

/* What libvirt counts; once it counts nothing any more, the totals of before. */
void move_read_stats(struct move *move);

/* Shows and reports it. record: of the source's tunnel, or an empty object. */
void view_move(struct move *move, json_object *record);
