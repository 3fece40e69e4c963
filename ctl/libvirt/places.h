/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Where the domain is, as the libvirt of each host has it; for the files of this folder. */

#include "ctl/libvirt/internal.h"

struct places {
    enum domain_state near, far;
    bool near_persistent, far_persistent;
};

/* Connects to the source's libvirt. */
int places_open_near(struct move *move, struct host *ret, struct trouble *trouble);

/* Asks both. A libvirt that does not answer is connected to anew, now and then. */
void places_look(struct move *move, struct places *ret);

bool places_moved(const struct places *places);
bool places_both_run(const struct places *places);
bool is_gone(enum domain_state state);
bool is_in_postcopy(enum domain_state near);
