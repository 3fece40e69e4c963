/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Setting BandwidthLimit. */

struct bus;

/* Puts it on the bus. 0 or a negative errno. */
int limit_export(struct bus *bus);
