/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "broker/config/config.h"

/*
 * Reads the configuration file and its drop-ins: with path that one, which must be there, and path.d/;
 * without, those of the host, all paths of which begin with root ("" but for tests). What is wrong in them is
 * logged with file and line, and the rest counts. 0, or a negative errno after logging it.
 */
int config_load(struct config *config, const char *root, const char *path);
