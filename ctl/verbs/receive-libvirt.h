/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ctl/loop.h"

/* 'receive --libvirt': prints the ticket, and brings libvirt's connections until the migration is over. */
int receive_libvirt(struct ctl *ctl, struct trouble *trouble);
