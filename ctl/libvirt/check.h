/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ctl/bus/findings.h"

/*
 * What 'check' looks at where libvirt drives the migration: nothing where there is no libvirt, unless
 * --domain= asks for it.
 */
void libvirt_check(struct check *check);
