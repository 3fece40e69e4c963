/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* 'vmferryctl tunnel': the tunnel alone, for what drives libvirt or QEMU by itself. */

#include "ctl/loop.h"

int verb_tunnel(struct ctl *ctl, struct trouble *trouble);
