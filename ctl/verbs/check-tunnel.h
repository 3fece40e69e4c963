/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "ctl/bus/findings.h"

/* Makes a real tunnel from the source to the destination: is it permitted, does it connect, how fast is it.
 */
void check_tunnel(struct check *check);
