/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A carrier of a peer connection in `plain`: both ends prove themselves, and then bytes go as they are. */

#include "helper/carrier/carrier.h"
#include "helper/protocol/greeting.h"

/* Takes fd on success; copies the rest. 0 or a negative errno. */
int carrier_plain_new(int fd, bool connecting, const struct preamble *preamble,
                      const uint8_t key[static KEY_SIZE], struct carrier **ret);
